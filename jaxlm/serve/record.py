"""What is noted of each request: one line in the log, and the metrics."""

from __future__ import annotations

import dataclasses
import logging
import time
import urllib.parse
from collections.abc import Collection
from typing import Any

from jaxlm.serve.metrics import Metrics

LOG = logging.getLogger("jaxlm.serve")


@dataclasses.dataclass
class Record:
    """One request, filled in while it is answered."""

    begun: float = dataclasses.field(default_factory=time.monotonic)
    client: str = "-"
    id: str | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    # seconds until the first token
    first: float | None = None
    dropped: bool = False
    # why it was refused
    reason: str | None = None

    def note_token(self) -> None:
        """Notes the time of the first token."""
        if self.first is None:
            self.first = time.monotonic() - self.begun


class Recorder:
    """ASGI middleware around everything: writes the line and counts."""

    def __init__(self, app: Any, metrics: Metrics, routes: Collection[str]):
        self._app = app
        self._metrics = metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        record = scope["jaxlm.record"] = Record()
        status = 0

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._note(scope, record, status)

    def _note(self, scope: Any, record: Record, status: int) -> None:
        seconds = time.monotonic() - record.begun
        if record.dropped:
            status = (
                499  # nginx's number for a client that went; also if its stream had begun with 200
            )
        # only known paths, so that strangers cannot make new time series
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.count(
            route=route,
            status=status,
            seconds=seconds,
            first=record.first,
            prompt=record.prompt_tokens,
            generated=record.generated_tokens,
            dropped=record.dropped,
        )
        # as it came, but no character that could forge a line
        path = urllib.parse.quote(scope["raw_path"][:200], safe="/%:@!$&'()*+,;=-._~")
        words = [record.client, scope["method"][:16], path, str(status), f"{seconds:.3f}s"]
        if record.prompt_tokens:
            words += [f"prompt={record.prompt_tokens}", f"generated={record.generated_tokens}"]
        if record.first is not None:
            words.append(f"first={record.first:.3f}s")
        if record.id is not None:
            words.append(record.id)
        if record.reason is not None:
            words.append(ascii(record.reason[:200]))
        LOG.info(" ".join(words))
