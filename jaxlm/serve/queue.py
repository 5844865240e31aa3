"""The waiting line: fair by client, of bounded length."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(eq=False)
class Order:
    """All jobs of one HTTP request; it waits as a whole until its first job starts."""

    client: str
    jobs: list[Job] = dataclasses.field(default_factory=list)
    started: bool = False


@dataclasses.dataclass(eq=False)
class Job:
    """One sequence to generate, to score or to embed, and where its results go."""

    order: Order
    # generation: Request; score: (token ids, top); embed: text
    kind: str
    work: Any
    # called in the event loop, with each result or the exception that ended the job
    deliver: Callable[[Any], None]
    # set by the worker
    number: int | None = None


class Full(Exception):
    """No room, and this client already has the most waiting."""


class FairQueue:
    """Jobs by client: whoever has the fewest running is next, and of these whoever was served longest ago.

    If it is full, a client with fewer jobs waiting displaces the newest request of the client that has the most
    ("longest queue drop"), so that nobody can fill it for everybody. Not thread-safe.
    """

    def __init__(self, size: int):
        self.size = size
        self._waiting: dict[str, collections.deque[Job]] = {}
        self._running: collections.Counter[str] = collections.Counter()
        self._served: dict[str, int] = {}
        self._clock = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, order: Order) -> list[Order]:
        """Adds the jobs of a request; the requests that it displaced.

        Raises:
            Full: they do not fit.
        """
        displaced: list[Order] = []
        while self._length + len(order.jobs) > self.size:
            victim = self._victim(order)
            if victim is None:
                for other in reversed(displaced):
                    self._append(other)
                raise Full
            self.remove(victim)
            displaced.append(victim)
        self._append(order)
        return displaced

    def _append(self, order: Order) -> None:
        line = self._waiting.setdefault(order.client, collections.deque())
        line.extend(order.jobs)
        self._length += len(order.jobs)

    def _victim(self, order: Order) -> Order | None:
        """The newest request of the client with the longest line, if that is longer than the newcomer's would be."""
        client = max(self._waiting, key=lambda c: len(self._waiting[c]), default=None)
        own = len(self._waiting.get(order.client, ())) + len(order.jobs)
        if client is None or client == order.client or len(self._waiting[client]) <= own:
            return None
        return next((j.order for j in reversed(self._waiting[client]) if not j.order.started), None)

    def pop(self, fits: Callable[[Job], bool]) -> Job | None:
        """The next job that can start now."""
        ready = [client for client, line in self._waiting.items() if fits(line[0])]
        if not ready:
            return None
        client = min(ready, key=lambda c: (self._running[c], self._served.get(c, -1)))
        job = self._waiting[client].popleft()
        self._clock += 1
        self._served[client] = self._clock
        self._running[client] += 1
        self._length -= 1
        job.order.started = True
        self._forget(client)
        return job

    def finish(self, job: Job) -> None:
        """A job that was popped no longer runs."""
        client = job.order.client
        self._running[client] -= 1
        self._forget(client)

    def remove(self, order: Order) -> list[Job]:
        """Takes out the jobs of a request that still wait."""
        line = self._waiting.get(order.client)
        if line is None:
            return []
        removed = [job for job in line if job.order is order]
        kept = [job for job in line if job.order is not order]
        self._waiting[order.client] = collections.deque(kept)
        self._length -= len(removed)
        self._forget(order.client)
        return removed

    def drain(self) -> list[Order]:
        """Takes out the requests none of whose jobs has started."""
        orders = {job.order: None for line in self._waiting.values() for job in line}
        waiting = [order for order in orders if not order.started]
        for order in waiting:
            self.remove(order)
        return waiting

    def _forget(self, client: str) -> None:
        """Keeps nothing of a client that has nothing here, so that memory does not grow with the clients."""
        if not self._waiting.get(client):
            self._waiting.pop(client, None)
            if self._running[client] == 0:
                del self._running[client]
                self._served.pop(client, None)
