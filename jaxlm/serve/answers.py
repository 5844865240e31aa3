"""The jobs of one request in flight, and what they deliver."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Any

from jaxlm.generation.requests import Request, Token
from jaxlm.serve.choice import Choice, Part
from jaxlm.serve.queue import Job, Order
from jaxlm.serve.refusal import Refusal
from jaxlm.serve.worker import Worker


class Answers:
    """Jobs with keys; iterate over what they deliver. Used as a context: leaving it cancels what is left."""

    def __init__(self, worker: Worker, client: str):
        self._worker = worker
        self._order = Order(client)
        self._open: dict[Any, Job] = {}
        self._arrived: collections.deque[tuple[Any, Any]] = collections.deque()
        self._event = asyncio.Event()
        self._submitted = False

    def add(self, key: Any, kind: str, work: Any) -> None:
        """One more job: `generate` a Request, `score` (ids, top), `embed` a text."""

        def deliver(result: Any) -> None:
            self._arrived.append((key, result))
            self._event.set()

        job = Job(self._order, kind, work, deliver)
        self._order.jobs.append(job)
        self._open[key] = job

    @property
    def requests(self) -> list[Request]:
        """What is to be generated."""
        return [job.work for job in self._order.jobs if job.kind == "generate"]

    def submit(self) -> None:
        """Puts the jobs into the queue."""
        if self._order.jobs:
            self._worker.submit(self._order)
            self._submitted = True

    def add_to(self, choice: Choice, token: Token) -> Part:
        """What a token adds to the choice with its job's key as index; a complete choice ends the job."""
        part = choice.add(token)
        if token.reason is not None:
            self.done(choice.index)
        elif choice.reason is not None:
            self.close_job(choice.index)
        return part

    def close_job(self, key: Any) -> None:
        """A job is complete, though it may run on: a stop string was reached."""
        job = self._open.pop(key, None)
        if job is not None:
            self._worker.cancel_job(job)

    def done(self, key: Any) -> None:
        """A job delivered its last result."""
        self._open.pop(key, None)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, Any]]:
        """Results with the keys of their jobs until all are done.

        Raises:
            Refusal: a job was refused.
        """
        while self._open:
            if not self._arrived:
                self._event.clear()
                await self._event.wait()
            key, result = self._arrived.popleft()
            if isinstance(result, Refusal):
                raise result
            if key in self._open:
                yield key, result

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open and self._submitted:
            self._worker.cancel(self._order)

    def is_open(self, key: Any) -> bool:
        """Whether a job has more to deliver."""
        return key in self._open
