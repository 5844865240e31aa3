"""Work on the texts of requests (templates, tokens, constraints) off the event loop, and fair between clients."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any

# less takes no longer than what else a request does in the event loop
_SHORT = 10_000


class TextWork:
    """Runs functions in threads, one of each client at a time, so that no client can occupy all threads."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: collections.Counter[str] = collections.Counter()

    async def run(
        self, client: str, work: Callable[[], Any], *, characters: int | None = None
    ) -> Any:
        """The result of `work`, which waits for the client's earlier ones.

        A thread cannot be stopped: if the caller is cancelled, this returns when the work is done, and the client's
        next one begins only then.

        Args:
            characters: length of the texts; short ones are worked on at once. None: it may take long at any length.
        """
        if characters is not None and characters < _SHORT:
            return work()
        lock = self._locks.setdefault(client, asyncio.Lock())
        self._users[client] += 1
        try:
            async with lock:
                thread = asyncio.ensure_future(asyncio.to_thread(work))
                try:
                    return await asyncio.shield(thread)
                finally:
                    if not thread.done():
                        await asyncio.wait({thread})
                        thread.exception()
        finally:
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client], self._locks[client]
