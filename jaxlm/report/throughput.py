"""Tokens per second of a training run."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator


class Throughput:
    """Tokens per second over the last steps, excluding time spent in `paused()` on anything but training."""

    def __init__(
        self, tokens_per_step: int, *, window: int = 50, clock: Callable[[], float] = time.monotonic
    ):
        self._tokens_per_step = tokens_per_step
        self._clock = clock
        self._paused = 0.0
        # when the last steps ended, pauses excluded
        self._ends: deque[float] = deque(maxlen=window + 1)

    def step(self) -> None:
        """Records the end of a step; the first one only starts the clock."""
        self._ends.append(self._clock() - self._paused)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent inside: evaluations, checkpoints, samples."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    @property
    def tokens_per_second(self) -> float | None:
        """The current value; None before the second step."""
        if len(self._ends) < 2 or self._ends[-1] <= self._ends[0]:
            return None
        steps = len(self._ends) - 1
        return steps * self._tokens_per_step / (self._ends[-1] - self._ends[0])
