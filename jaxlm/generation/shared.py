"""One engine for several users at a time: iterators that are open side by side, or threads."""

from __future__ import annotations

import threading
from collections.abc import Collection

from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request, Token


class Shared:
    """An engine of which each user gets the tokens of its own requests, whoever makes the steps."""

    def __init__(self, engine: Engine):
        """The engine must have no other users."""
        self._engine = engine
        self._lock = threading.Lock()
        # tokens that came in a step of another user, by the number of the request
        self._tokens: dict[int, list[Token]] = {}

    def add(self, request: Request) -> int:
        """Puts a request into the queue; returns its number."""
        with self._lock:
            number = self._engine.add(request)
            self._tokens[number] = []
            return number

    def cancel(self, number: int) -> None:
        """Ends a request, or forgets one that has ended."""
        with self._lock:
            self._engine.cancel(number)
            self._tokens.pop(number, None)

    def step(self, numbers: Collection[int]) -> list[Token]:
        """The next tokens of these requests; none if all of them have ended."""
        with self._lock:
            while not any(self._tokens[number] for number in numbers):
                if not (numbers and (self._engine.active or self._engine.waiting)):
                    return []
                for token in self._engine.step():
                    # without an entry, the request was cancelled
                    if token.request in self._tokens:
                        self._tokens[token.request].append(token)
            found = [token for number in numbers for token in self._tokens[number]]
            for number in numbers:
                self._tokens[number] = []
            return found
