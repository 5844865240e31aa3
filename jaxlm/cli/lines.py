"""Results as lines of JSON: written as they come, in order; a file that is there already is continued."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any


def write(out: pathlib.Path | None, results: Iterable[dict[str, Any]]) -> int:
    """Appends a line for each result, as it comes, to a file or standard output; returns how many."""
    count = 0
    with open(out, "a", encoding="utf-8") if out else _Standard() as file:
        for result in results:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
            file.flush()
            count += 1
    return count


class _Standard:
    """Standard output as a file that is not closed."""

    def __enter__(self) -> Any:
        return sys.stdout

    def __exit__(self, *_: object) -> None:
        pass


def repair(path: pathlib.Path) -> int:
    """The number of whole lines of a file, 0 if there is none; a line that was cut off is removed."""
    if not path.exists():
        return 0
    count, end = 0, 0
    with open(path, "r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def read(path: pathlib.Path, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` lines of a file; {} for what is no JSON object."""
    if not count:
        return
    with open(path, "rb") as file:
        for _, line in zip(range(count), file):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            yield value if isinstance(value, dict) else {}


def in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """The results by their index, each as soon as it and all before it are there."""
    waiting, following = {}, 0
    for index, result in results:
        waiting[index] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def with_progress(
    results: Iterator[Any], what: str, *, done: int = 0, total: int | None = None
) -> Iterator[Any]:
    """Shows how many are written, if someone looks at standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from results
        return
    left = [TimeElapsedColumn()] if total is None else [BarColumn(), TimeRemainingColumn()]
    with Progress(TextColumn(what), MofNCompleteColumn(), *left, console=console) as bar:
        job = bar.add_task(what, total=total, completed=done)
        for result in results:
            yield result
            bar.advance(job)
