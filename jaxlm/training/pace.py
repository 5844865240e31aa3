"""How long steps take: which are much slower than usual, and the fraction of the time that is spent in steps."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator

# steps that the median is taken over, and how many there must be
_WINDOW, _LEAST = 100, 10
# a slow step takes so many times the median, and so many seconds more
_SLOW, _SLOW_SECONDS = 2.0, 1.0
# seconds between two notes about slow steps
_QUIET = 60.0


class Pace:
    """Durations of steps, without the time spent in `paused()`.

    Time is that between the ends of steps, so it includes waiting for data.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        # when the current step began; None: before the first one
        self._began: float | None = None
        self._durations: deque[float] = deque(maxlen=_WINDOW)
        # when a slow step was last told of, and how many were not
        self._told = -_QUIET
        self._untold = 0
        # total time in steps
        self.seconds = 0.0

    def begin(self) -> None:
        """A segment of steps begins; its first step counts from here, but not in the median."""
        self._began = self._clock()
        self._durations.clear()
        self._is_first = True

    def step(self) -> float | None:
        """A step has ended; returns its seconds, or None for the first one of a segment."""
        now = self._clock()
        assert self._began is not None
        duration, self._began = now - self._began, now
        self.seconds += duration
        if self._is_first:
            self._is_first = False
            return None
        self._durations.append(duration)
        return duration

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent inside: evaluations, checkpoints, samples."""
        start = self._clock()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += self._clock() - start

    @property
    def median(self) -> float | None:
        """Seconds of a usual step; None: too few have been done."""
        # a copy, because the heartbeat asks from another thread
        durations = tuple(self._durations)
        return statistics.median(durations) if len(durations) >= _LEAST else None

    def slow(self, duration: float | None) -> str | None:
        """What to say of a step of this duration: how slow it was, and how many others were since the last line."""
        median = self.median
        if duration is None or median is None:
            return None
        if duration < _SLOW * median or duration < median + _SLOW_SECONDS:
            return None
        now = self._clock()
        if now - self._told < _QUIET:
            self._untold += 1
            return None
        others = f", as were {self._untold} others since the last such line" if self._untold else ""
        self._told, self._untold = now, 0
        return f"took {duration:.1f} s, {duration / median:.1f} times the median of {median:.2f} s{others}"
