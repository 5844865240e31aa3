"""Parallel text files, as data for translation ship them: line n of one file belongs to line n of the other.

The source `parallel:train.de,train.en` reads both as the first two text columns of a task (or as `data.columns` names
them); `parallel:test.de` alone is enough where the second column is not needed. Files may end in .gz or .zst.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlm.config.data import DataConfig
from jaxlm.data import formats
from jaxlm.data.bad_rows import NOT_UTF8, BadRow, is_undecoded
from jaxlm.data.columns import Column

PREFIX = "parallel:"


def rows(
    source: str, config: DataConfig, columns: Mapping[str, Column]
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """The rows of such a source, each with the first file and its line.

    Raises:
        ValueError: a file cannot be read, the numbers of lines differ, or there are more files than columns.
    """
    paths = source.removeprefix(PREFIX).split(",")
    texts = [column.name for column in columns.values() if column.kind == "text"]
    names = config.columns or tuple(dict.fromkeys(texts))
    if not all(paths) or len(paths) > len(names):
        raise ValueError(
            f"{source}: give up to {len(names)} files, as in {PREFIX}train.de,train.en; their columns are "
            f"{', '.join(names) or 'none: the task reads no text columns'}"
        )
    formats.check_columns(source, tuple(names[: len(paths)]), columns, config)
    with contextlib.ExitStack() as files:
        lines = [files.enter_context(contextlib.closing(formats.lines(path))) for path in paths]
        for number, row in enumerate(itertools.zip_longest(*lines), 1):
            if None in row:
                short = paths[row.index(None)]
                raise ValueError(
                    f"{source}: {short} has {number - 1:,} lines and another file more, so that they do not match"
                )
            where = f"{paths[0]}:{number}"
            yield where, NOT_UTF8 if any(map(is_undecoded, row)) else dict(zip(names, row))
