"""A trace of some steps of a run, for the profiler of TensorBoard."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from jaxlm.training import processes


def check(steps: tuple[int, int] | None, last: int) -> None:
    """Raises ValueError if none of the steps to trace is in a run whose last step is `last`."""
    if steps is not None and steps[0] > last:
        raise ValueError(
            f"profile={steps}: the run ends at step {last}, so there is nothing to trace"
        )


class Profile:
    """Traces steps on process 0; where there is nothing to trace it does nothing.

    Args:
        steps: the first and the last one; None: none.
        folder: of the run, in which TensorBoard finds the trace.
        say: is told where the trace is.
    """

    def __init__(
        self, steps: tuple[int, int] | None, folder: pathlib.Path, say: Callable[[str], Any]
    ):
        self._first: int | None = None
        self.last: int | None = None
        if steps is not None:
            self._first, self.last = steps
        self._folder, self._say = folder, say
        self._is_running = False
        # the last step that has begun
        self._traced = 0

    def before(self, step: int) -> None:
        """Begins the trace if the step is the first one to trace, or one after it in a run that resumes."""
        if self._first is None or self.last is None or not processes.is_main():
            return
        if step > self.last:
            self._say(
                f"no trace: this session begins after step {self.last}, the last one to trace"
            )
            self._first = None
        elif self._is_running:
            self._traced = step
        elif self._first <= step:
            self._first = self._traced = step
            jax.profiler.start_trace(self._folder)
            self._is_running = True

    def stop(self) -> None:
        """Writes the trace, when its last step or the run has ended."""
        if not self._is_running:
            return
        self._is_running = False
        jax.profiler.stop_trace()
        folder = self._folder / "plugins/profile"
        self._say(f"the trace of steps {self._first} to {self._traced} is in {folder}")
        self._first = None
