"""One source of examples, a row at a time and checked: files and patterns, the Hugging Face hub, built-in text."""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

from jaxlm.config.data import DataConfig
from jaxlm.data import builtin, formats
from jaxlm.data.formats import BadRow

Split = Literal["train", "validation"]
# the columns that were asked for, and `id`
Record = dict[str, str]

_EMPTY = BadRow("empty text")
# names that data sets of the hub give to their parts
_HUB_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "test")}


@dataclasses.dataclass
class RowCounts:
    """How many rows were read, and how many of these were left out for which reason."""

    read: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # for each reason, the place where it was met first
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def skip(self, bad: BadRow, where: str) -> None:
        """Counts a row that is left out."""
        self.skipped[bad.reason] += 1
        self.first.setdefault(bad.reason, where)

    def __str__(self) -> str:
        reasons = [
            f"{count:,} left out: {reason} (first at {self.first[reason]})"
            for reason, count in self.skipped.items()
        ]
        return "; ".join([f"{self.read:,} rows read", *reasons])


def read(
    source: str,
    config: DataConfig,
    *,
    columns: tuple[str, ...],
    split: Split = "train",
    counts: RowCounts | None = None,
) -> Iterator[Record]:
    """The usable rows of one source: the given columns as strings, and `id`, the place the row comes from.

    Args:
        source: a path or pattern, `hub:<id>[:<config>]` or `builtin:<name>`.
        config: how to read it.
        columns: texts, and the label if `config.label_column` is among them.
        split: the part of a hub data set; other sources have one part.
        counts: counts rows as they are read.

    Raises:
        ValueError: the source cannot be read, or a row cannot be used and `config.on_bad_row` is "error".
    """
    counts = RowCounts() if counts is None else counts
    for where, row in _rows(source, config, columns, split):
        counts.read += 1
        record = row if isinstance(row, BadRow) else _checked(row, columns, config.label_column)
        if not isinstance(record, BadRow):
            yield {**record, "id": where}
        elif record is _EMPTY or config.on_bad_row == "skip":
            counts.skip(record, where)
        else:
            raise ValueError(f"{where}: {record} (data.on_bad_row=skip leaves such rows out)")


def _rows(
    source: str, config: DataConfig, columns: tuple[str, ...], split: Split
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """The rows of a source with the place of each."""
    if source.startswith("builtin:"):
        yield from _builtin(source, config, columns)
    elif source.startswith("hub:"):
        yield from _hub(source, config, columns, split)
    else:
        for path in _paths(source):
            empty = True
            for number, row in formats.rows(path, config, columns):
                empty = False
                yield f"{path}:{number}", row
            if empty:
                yield f"{path}:1", BadRow("empty file", "there is no row in it")


def is_shards(source: str) -> bool:
    """Whether a source is a folder that `jaxlm tokenize` wrote: `shards:FOLDER`, or one with a manifest in it."""
    files = ("manifest.json", "progress.json")
    return source.startswith("shards:") or any(os.path.isfile(f"{source}/{f}") for f in files)


def shard_folder(source: str) -> pathlib.Path:
    """The folder of a source of shards."""
    return pathlib.Path(source.removeprefix("shards:"))


def _paths(source: str) -> list[str]:
    if os.path.exists(source) or not glob.has_magic(source):
        return [source]
    paths = sorted(path for path in glob.glob(source, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise ValueError(f"{source}: no file matches this pattern")
    return paths


def _checked(row: dict[str, Any], columns: tuple[str, ...], label: str) -> dict[str, str] | BadRow:
    record = {}
    for column in columns:
        if column not in row:
            has = ", ".join(str(name)[:40] for name in row) or "none"
            return BadRow(f"no column {column!r}", f"the row has: {has}")
        value = row[column]
        if column == label and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        bad = _fault(value, column, label)
        if bad is not None:
            return bad
        record[column] = value.strip() if column == label else value
    return record


def _fault(value: Any, column: str, label: str) -> BadRow | None:
    """What is wrong with the value of a column, if anything is."""
    if value is None:
        return BadRow(f"null in column {column!r}")
    if not isinstance(value, str):
        wanted = "a string or a whole number" if column == label else "a string"
        shown = repr(value)[:40]
        return BadRow(f"column {column!r} is not {wanted}", f"{shown} is a {type(value).__name__}")
    if not value or value.isspace():
        return BadRow(f"empty label in column {column!r}") if column == label else _EMPTY
    if "\0" in value:
        return BadRow(f"NUL character in column {column!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        return BadRow(
            f"lone surrogate in column {column!r}", "half of a character, which no text has"
        )
    return None


def _builtin(
    source: str, config: DataConfig, columns: tuple[str, ...]
) -> Iterator[tuple[str, dict]]:
    name = source.removeprefix("builtin:")
    for example in builtin.read(name):
        row = {config.text_column: example.text}
        if example.label is not None:
            row[config.label_column] = example.label
        formats.check_columns(source, tuple(row), columns)
        yield f"{name}/{example.name}", row


def _hub(
    source: str, config: DataConfig, columns: tuple[str, ...], split: Split
) -> Iterator[tuple[str, dict]]:
    # takes a second to import, and most runs do not need it
    import datasets

    name, _, variant = source.removeprefix("hub:").partition(":")
    try:
        parts = datasets.load_dataset(name, variant or None)
    except Exception as e:  # network, hub and format errors have no common class
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise ValueError(
            f"{source}: cannot be loaded from the Hugging Face hub, is the name right and the machine online? {reason}"
        ) from e
    part = next((part for part in _HUB_SPLITS[split] if part in parts), None)
    if part is None:
        raise ValueError(f"{source}: no part for {split}; it has: {', '.join(parts)}")
    rows = parts[part]
    formats.check_columns(source, tuple(rows.column_names), columns)
    rows = rows.select_columns(list(columns))
    # class numbers as their names; -1 means that there is no label
    names = getattr(rows.features.get(config.label_column), "names", None)
    for number, row in enumerate(rows, 1):
        if names is not None and config.label_column in columns:
            code = row[config.label_column]
            row[config.label_column] = None if code is None or code < 0 else names[code]
        yield f"{source}/{part}:{number}", row
