"""Endpoints that generate nothing: models, embeddings, tokens, health."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from jaxlm.serve.answers import Answers
from jaxlm.serve.exchange import Exchange
from jaxlm.serve.fields import Fields
from jaxlm.serve.protocol import check_model, read_embedding, read_messages, token_ids
from jaxlm.serve.refusal import Refusal, bad_field
from jaxlm.serve.served import Served
from jaxlm.serve.worker import Worker

# settings whose defaults the chat page shows
_SHOWN = ("temperature", "top_p", "top_k", "max_new_tokens")


def model_body(served: Served, created: int) -> dict[str, Any]:
    """The model as /v1/models lists it; `jaxlm` tells the chat page what the model can do."""
    length = None if served.engine is None else served.engine.max_len
    kind = "chat" if served.kind == "decoder" and served.template is not None else served.kind
    defaults = {name: getattr(served.defaults, name) for name in _SHOWN}
    return dict(
        id=served.name,
        object="model",
        created=created,
        owned_by="jaxlm",
        max_model_len=length,
        jaxlm=dict(
            kind="completion" if kind == "decoder" else kind,
            fill_in_middle=served.fill_tokens() is not None,
            max_len=length,
            parameters=served.parameters,
            defaults=defaults,
        ),
    )


async def embed(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    """/v1/embeddings."""
    texts, as_base64 = read_embedding(value, (served.name,), served.dim)
    if len(texts) > exchange.limits.answers:
        raise bad_field(
            "input", f"has {len(texts):,} texts; at most {exchange.limits.answers:,} are allowed"
        )
    framed = await served.text_work.run(
        exchange.record.client,
        lambda: [served.framed(text, "input") for text in texts],
        characters=sum(map(len, texts)),
    )
    for i, ids in enumerate(framed):
        if exchange.limits.prompt_tokens and len(ids) > exchange.limits.prompt_tokens:
            raise bad_field(
                f"input[{i}]",
                f"has {len(ids):,} tokens; at most {exchange.limits.prompt_tokens:,} are allowed",
            )
    tokens = exchange.record.prompt_tokens = sum(map(len, framed))
    vectors: dict[int, Any] = {}
    with Answers(worker, exchange.record.client) as answers:
        for i, text in enumerate(texts):
            answers.add(i, "embed", text)
        answers.submit()
        async for i, vector in answers:
            vectors[i] = vector
            answers.done(i)
    write = _base64 if as_base64 else lambda vector: np.asarray(vector, np.float64).tolist()
    data = [
        dict(object="embedding", index=i, embedding=write(vectors[i])) for i in range(len(texts))
    ]
    counts = dict(prompt_tokens=tokens, total_tokens=tokens)
    await exchange.send_json(dict(object="list", data=data, model=served.name, usage=counts))


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


async def tokenize(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    """/tokenize, as vLLM has it."""
    body = Fields(value)
    check_model(body, (served.name,))
    text = body.text("prompt")
    frame = body.flag("add_special_tokens", True)
    named = body.flag("return_token_strs")
    messages = read_messages(body) if text is None else []
    generation = body.flag("add_generation_prompt", True)
    body.end()
    if text is None:
        prompt = await served.text_work.run(
            exchange.record.client, lambda: served.chat_prompt(messages, [], {}, generation)
        )
        ids = prompt.ids
    elif (
        text in served.tokenizer.vocab
        and served.tokenizer.vocab[text] in served.tokenizer.special_ids
    ):
        # lm-evaluation-harness asks so for the ids of bos and eos; a control token within a text stays text
        ids = [served.tokenizer.vocab[text]]
    else:
        ids = await served.text_work.run(
            exchange.record.client,
            lambda: served.framed(text, "prompt") if frame else served.tokenizer.encode(text),
            characters=len(text),
        )
    result: dict[str, Any] = dict(
        count=len(ids),
        max_model_len=None if served.engine is None else served.engine.max_len,
        tokens=ids,
    )
    if named:
        result["token_strs"] = [served.pieces.text(i) for i in ids]
    await exchange.send_json(result)


async def detokenize(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    """/detokenize, as vLLM has it."""
    body = Fields(value)
    check_model(body, (served.name,))
    ids = body.require("tokens", body.take("tokens"))
    body.end()
    if not isinstance(ids, list):
        raise body.wrong("tokens", "must be a list of token ids")
    if ids:
        token_ids("tokens", ids, served.vocab_size)
    text = await served.text_work.run(
        exchange.record.client,
        lambda: served.tokenizer.decode(ids, skip_special=False),
        characters=len(ids),
    )
    await exchange.send_json(dict(prompt=text))


def tokenizer_info(served: Served) -> dict[str, Any]:
    """/tokenizer_info: names of control tokens and the chat template."""
    tokenizer = served.tokenizer
    names = {i: name for name, i in tokenizer.vocab.items()}
    roles = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    ids = {role: getattr(tokenizer, f"{role}_id") for role in roles}
    named = {f"{role}_token": None if i is None else names[i] for role, i in ids.items()}
    template = served.template
    if isinstance(template, dict):
        template = template.get("default")
    return dict(
        tokenizer_class=type(tokenizer.backend.model).__name__,
        vocab_size=tokenizer.vocab_size,
        model_max_length=None if served.engine is None else served.engine.max_len,
        chat_template=template,
        **named,
    )


def health(worker: Worker) -> tuple[int, dict[str, Any]]:
    """/health: 200 if requests are answered at once or from the queue, 503 before the warm-up and at the end."""
    status = 200 if worker.state == "ok" else 503
    body = dict(status=worker.state, running=worker.active, waiting=worker.waiting)
    if worker.state == "warming up":
        done, total = worker.warmed
        body["warm_up"] = dict(compiled=done, shapes=total)
    return status, body


def refuse_kind(served: Served, path: str) -> Refusal:
    """The refusal of an endpoint that this kind of model does not have."""
    kind = served.kind.replace("_", "-")
    what = "writes no text" if served.kind == "encoder" else "gives no embeddings"
    return Refusal(404, f"{path}: the model {served.name} is of kind {kind}, which {what}")
