"""Results as lines of JSON: written as they come, in order; a file that is there already is continued."""

from __future__ import annotations

import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from jaxlm.config.disk import naming


def write(out: pathlib.Path | None, results: Iterable[dict[str, Any]], *, done: int = 0) -> int:
    """Writes a line for each result, as it comes, to standard output or behind the first `done` lines of a file;
    returns how many. Before there is a result the file is not touched."""
    results = iter(results)
    first = list(itertools.islice(results, 1))
    if out:
        cut(out, done)
    count = 0
    with naming(out or "standard output"), _opened(out) as file:
        for result in itertools.chain(first, results):
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
            file.flush()
            count += 1
    return count


def _opened(out: pathlib.Path | None) -> Any:
    return open(out, "a", encoding="utf-8") if out else _Standard()


class _Standard:
    """Standard output as a file that is not closed."""

    def __enter__(self) -> Any:
        return sys.stdout

    def __exit__(self, *_: object) -> None:
        pass


def whole(path: pathlib.Path, start: str) -> int:
    """The number of whole lines of a file; 0 if there is none, or if it is a device or a pipe.

    Args:
        path: of the file.
        start: what each line begins with.

    Raises:
        ValueError: behind the last whole line is something that is not the beginning of such a line.
    """
    count, tail = 0, b""
    if path.is_file():
        with open(path, "rb") as file:
            for line in file:
                count, tail = (count + 1, b"") if line.endswith(b"\n") else (count, line)
    if not (tail.startswith(start.encode()) or start.encode().startswith(tail)):
        raise ValueError(
            f"{path}: its last line is not one of this command's; remove the file or name another one"
        )
    return count


def cut(path: pathlib.Path, count: int) -> None:
    """Removes what is behind the first `count` lines of a file: a line that was cut off."""
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        file.truncate(sum(len(line) for _, line in zip(range(count), file)))


def read(path: pathlib.Path, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` lines of a file; {} for what is no JSON object."""
    if not count:
        return
    with open(path, "rb") as file:
        for _, line in zip(range(count), file):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
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
