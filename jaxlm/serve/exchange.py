"""One request and its answer over ASGI: the body within limits, JSON or a stream of events, and a client that goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping
from typing import Any

from jaxlm.serve import fields
from jaxlm.serve.limits import Limits
from jaxlm.serve.record import Record
from jaxlm.serve.refusal import Refusal

# how much of a body that is too large is read before the refusal, so that the client gets to read it
_LINGER = 16 << 20


class Gone(Exception):
    """The client closed the connection."""


class Exchange:
    """A request with the ways to answer it."""

    def __init__(self, scope: Any, receive: Any, send: Any, limits: Limits):
        self.scope = scope
        self.record: Record = scope["jaxlm.record"]
        self.limits = limits
        self._receive = receive
        self._send = send
        self._streaming = False
        self._started = False
        self._complete = False
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }

    # ---- the request

    async def json(self) -> dict[str, Any]:
        """The JSON object of the body."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # a web page of a stranger can post forms and plain text here, but JSON only if it is allowed to
            raise Refusal(
                415, f"content-type must be application/json, not {kind[:80] or 'absent'}"
            )
        return fields.parse(await self._body())

    async def _body(self) -> bytes:
        most = self.limits.body_bytes
        length = self.headers.get("content-length", "0")
        announced = int(length) if length.isdigit() else 0
        too_large = Refusal(413, f"the body is larger than {most:,} bytes")
        if announced > most and "100-continue" in self.headers.get("expect", ""):
            raise too_large
        if announced > most + _LINGER:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.receive_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    part = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        parts.clear()
                        if size > most + _LINGER:
                            raise too_large
                    else:
                        parts.append(part)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            seconds = self.limits.receive_seconds
            raise Refusal(408, f"the body did not come within {seconds:g} seconds") from None
        if size > most:
            raise too_large
        return b"".join(parts)

    async def until_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work, or cancels it when the client closes the connection; the body has been read before.

        Raises:
            Gone: it did.
        """
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            gone = not task.done()
            if gone:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if gone and not self._complete:
            raise Gone
        task.result()

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # ---- the answer

    async def send(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer."""
        self._started = self._complete = True
        named = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        await self._start(status, named)
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        listed = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": listed})

    async def send_json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """A JSON answer."""
        await self.send(status, encode(value), "application/json", headers)

    async def send_event(self, value: Any) -> None:
        """An event of the stream, which the first one opens."""
        if not self._streaming:
            self._streaming = self._started = True
            # x-accel-buffering: so that nginx passes each event on
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            await self._start(200, {"content-type": "text/event-stream; charset=utf-8", **headers})
        await self._write(b"data: " + encode(value) + b"\n\n")

    async def end_stream(self) -> None:
        """The last event, which says that the stream is whole."""
        await self._write(b"data: [DONE]\n\n")
        self._complete = True
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def refuse(self, refusal: Refusal) -> None:
        """The refusal as the answer, or as an event if the stream has begun."""
        self.record.reason = refusal.message
        if self._complete:
            return
        if self._streaming:
            await self.send_event(refusal.body())
            await self.end_stream()
        elif not self._started:
            await self.send_json(refusal.body(), refusal.status, refusal.headers())

    async def abort(self) -> None:
        """Closes the connection of a client that does not read, or whose answer is cut off."""
        transport = self.scope.get("state", {}).get("transport")
        if transport is not None:
            transport.abort()
            await asyncio.sleep(0)  # the server notices


def encode(value: Any) -> bytes:
    """JSON in ASCII: some clients take U+2028 for the end of a line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
