"""Seconds of the steps that find duplicates, which belong to no document's way through the stages."""

from __future__ import annotations

import pathlib
import time
from types import TracebackType

from jaxlm.refine import shards


class Timer:
    """Adds up the time within its `with` blocks; `close` leaves it in a file for `total`."""

    def __init__(self, folder: pathlib.Path, step: str, task: int) -> None:
        self._path = folder / "seconds" / f"{step}-{task:05d}"
        self._seconds = self._began = 0.0

    def __enter__(self) -> Timer:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._seconds += time.perf_counter() - self._began

    def close(self) -> None:
        """Writes the sum."""
        shards.write_text(self._path, repr(self._seconds))


def total(folder: pathlib.Path) -> float:
    """Seconds of all steps and tasks that wrote into the folder."""
    return sum(float(path.read_text()) for path in (folder / "seconds").glob("[!.]*"))
