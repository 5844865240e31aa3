"""The ASGI application: routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from jaxlm.serve import chat, completions, others
from jaxlm.serve.exchange import Exchange, Gone
from jaxlm.serve.keys import Keys
from jaxlm.serve.limits import Limits
from jaxlm.serve.metrics import Metrics
from jaxlm.serve.record import LOG, Recorder
from jaxlm.serve.refusal import Refusal
from jaxlm.serve.served import Served
from jaxlm.serve.worker import Worker

# answers a request with a JSON body
_Handler = Callable[[Served, Worker, Exchange, Any], Coroutine[Any, Any, None]]
# of the page's files; nothing of it comes from anywhere else
_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def make_app(
    served: Served, worker: Worker, limits: Limits, keys: Keys, origins: Sequence[str] = ()
) -> Any:
    """The application; its lifespan starts and stops the worker.

    Args:
        origins: web pages of other origins that may call the server (CORS).
    """
    metrics = Metrics(served.name, lambda: worker.active, lambda: worker.waiting)
    created = int(time.time())
    listed = others.model_body(served, created)

    async def models(exchange: Exchange) -> None:
        await exchange.send_json(dict(object="list", data=[listed]))

    async def model(exchange: Exchange) -> None:
        if exchange.scope["path_params"]["name"] != served.name:
            raise Refusal(404, f"there is no such model; there is {served.name}")
        await exchange.send_json(listed)

    async def health(exchange: Exchange) -> None:
        status, body = others.health(worker)
        await exchange.send_json(body, status)

    async def show_metrics(exchange: Exchange) -> None:
        await exchange.send(200, metrics.text(), metrics.content_type)

    async def info(exchange: Exchange) -> None:
        await exchange.send_json(others.tokenizer_info(served))

    gets = {
        "/v1/models": models,
        "/v1/models/{name:path}": model,
        "/metrics": show_metrics,
        "/tokenizer_info": info,
    }
    posts: dict[str, _Handler] = {
        "/v1/chat/completions": chat.chat,
        "/v1/completions": completions.complete,
        "/v1/embeddings": others.embed,
        "/tokenize": others.tokenize,
        "/detokenize": others.detokenize,
    }
    generating = served.kind != "encoder"
    for path in (
        ("/v1/chat/completions", "/v1/completions") if not generating else ("/v1/embeddings",)
    ):
        posts[path] = _refuse_kind

    def endpoint(answer: Callable[[Exchange], Awaitable[None]], is_open: bool = False) -> Any:
        return _Endpoint(answer, limits, Keys() if is_open else keys)

    def with_body(handler: _Handler) -> Callable[[Exchange], Awaitable[None]]:
        async def answer(exchange: Exchange) -> None:
            value = await exchange.json()
            await exchange.until_gone(handler(served, worker, exchange, value))

        return answer

    routes = [
        Route("/health", endpoint(health, is_open=True), methods=["GET"]),
        *(Route(path, endpoint(answer), methods=["GET"]) for path, answer in gets.items()),
        *(Route(path, endpoint(with_body(h)), methods=["POST"]) for path, h in posts.items()),
    ]
    for path, (body, kind) in _page().items():
        routes.append(Route(path, endpoint(_file(body, kind), is_open=True), methods=["GET"]))

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    app: Any = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error}
    )
    app.router.redirect_slashes = False
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    known = [route.path for route in routes]
    return Recorder(app, metrics, known)


class _Endpoint:
    """An ASGI application of one route: key, time limit, and errors as clients expect them."""

    def __init__(self, answer: Callable[[Exchange], Awaitable[None]], limits: Limits, keys: Keys):
        self._answer = answer
        self._limits = limits
        self._keys = keys

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, self._limits)
        address = (scope.get("client") or ("-",))[0]
        exchange.record.client = address
        try:
            exchange.record.client = self._keys.client(
                exchange.headers.get("authorization"), address
            )
            async with asyncio.timeout(self._limits.seconds):
                await self._answer(exchange)
        except Refusal as refusal:
            await self._refuse(exchange, refusal)
        except TimeoutError:
            seconds = f"{self._limits.seconds:g} seconds"
            await self._refuse(exchange, Refusal(504, f"the answer took longer than {seconds}"))
        except Gone:
            exchange.record.dropped = True
        except asyncio.CancelledError:
            exchange.record.dropped = True
            exchange.record.reason = "the server was stopped"
            await exchange.abort()
        except Exception:
            LOG.exception("a request failed")
            await self._refuse(exchange, Refusal(500, "the server failed; its log has the reason"))

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                await exchange.refuse(refusal)
        except TimeoutError:
            exchange.record.dropped = True
            await exchange.abort()


async def _refuse_kind(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    raise others.refuse_kind(served, exchange.scope["path"])


async def _http_error(request: Any, e: Any) -> JSONResponse:
    """What starlette refuses: no such path, or not this method."""
    message = f"there is no {request.url.path[:200]}" if e.status_code == 404 else str(e.detail)
    if e.status_code == 405:
        message = f"{request.method} is not possible here; there is {e.headers['Allow']}"
    refusal = Refusal(e.status_code, message)
    request.scope["jaxlm.record"].client = (request.scope.get("client") or ("-",))[0]
    return JSONResponse(refusal.body(), e.status_code, headers=e.headers)


def _page() -> dict[str, tuple[bytes, str]]:
    """Path -> content and type of the chat page's files, which are read once: no path of a request is opened."""
    folder = importlib.resources.files("jaxlm.serve").joinpath("page")
    if not folder.is_dir():
        return {}
    files = {}
    for entry in folder.iterdir():
        kind = _TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is not None:
            files[f"/page/{entry.name}"] = (entry.read_bytes(), kind)
    return files | {"/": files["/page/index.html"]}


def _file(body: bytes, kind: str) -> Callable[[Exchange], Awaitable[None]]:
    async def send(exchange: Exchange) -> None:
        await exchange.send(200, body, kind, _PAGE_HEADERS)

    return send
