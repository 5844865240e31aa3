"""Reads and validates one source of examples row by row: files and patterns, the Hugging Face hub, built-in text."""

from __future__ import annotations

import glob
import io
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxlm.config.data import DataConfig
from jaxlm.config.urls import bucket_url, refuse_url
from jaxlm.data import builtin, formats, json_files, parallel
from jaxlm.data.bad_rows import EMPTY_FILE, EMPTY_TEXT, BadRow, RowCounts
from jaxlm.data.columns import Column, Record, check, check_roles, stored_names
from jaxlm.remote import cache

Split = Literal["train", "validation"]

# source of what is piped into the program
STANDARD_INPUT = "-"

# names of the splits in data sets on the hub
_HUB_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "test")}


def read(
    source: str,
    config: DataConfig,
    *,
    columns: Mapping[str, Column],
    split: Split = "train",
    counts: RowCounts | None = None,
) -> Iterator[Record]:
    """The usable rows of one source: the value of each role's column, and `id`, the source of the row.

    Args:
        source: a path or pattern, `hub:<id>[:<config>]` or `builtin:<name>`.
        config: how to read it.
        columns: role (the task's name for a column) -> column.
        split: the split of a hub data set; other sources have no splits.
        counts: updated as rows are read.

    Raises:
        ValueError: the source cannot be read, or a row cannot be used and `config.on_bad_row` is "error".
    """
    counts = RowCounts() if counts is None else counts
    for where, record in read_all(source, config, columns=columns, split=split):
        counts.read += 1
        if not isinstance(record, BadRow):
            yield record
        elif record == EMPTY_TEXT or config.on_bad_row == "skip":
            counts.skip(record, where)
        else:
            raise bad_row_error(source, where, record)


def read_all(
    source: str,
    config: DataConfig,
    *,
    columns: Mapping[str, Column],
    split: Split = "train",
) -> Iterator[tuple[str, Record | BadRow]]:
    """Every row of one source with its file and line, as a BadRow if it cannot be used; arguments as of `read`."""
    check_roles(columns)
    # a column is checked after the one that it refers to
    in_order = dict(sorted(columns.items(), key=lambda item: item[1].over is not None))
    for where, row in _rows(source, config, columns, split):
        record = row if isinstance(row, BadRow) else check(row, in_order)
        if not isinstance(record, BadRow):
            record["id"] = where
        yield where, record


def bad_row_error(source: str, where: str, bad: BadRow) -> ValueError:
    """The error for a row that cannot be used."""
    # without its only file a source has nothing left
    only = bad == EMPTY_FILE and where == f"{source}:1"
    hint = "" if only else " (set data.on_bad_row=skip to skip such rows)"
    return ValueError(f"{where}: {bad}{hint}")


def _rows(
    source: str, config: DataConfig, columns: Mapping[str, Column], split: Split
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """The rows of a source, each with its file and line or row number."""
    if source == STANDARD_INPUT:
        yield from _standard_input(config, columns)
    elif source.startswith("builtin:"):
        yield from _builtin(source, config, columns)
    elif source.startswith(parallel.PREFIX):
        yield from parallel.rows(source, config, columns)
    elif source.startswith("hub:"):
        yield from _hub(source, columns, config, split)
    else:
        # only token shards are read from a bucket
        refuse_url(source)
        for path in _paths(source):
            empty = True
            for row_number, row in formats.rows(path, config, columns):
                empty = False
                yield f"{path}:{row_number}", row
            if empty:
                yield f"{path}:1", EMPTY_FILE


def _standard_input(
    config: DataConfig, columns: Mapping[str, Column]
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """JSON objects, a line each, if the first line is one; else texts, a line each."""
    lines = io.TextIOWrapper(
        sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", write_through=True
    )
    first = next((line for line in lines if not line.isspace()), "")
    file = itertools.chain([first] if first else [], lines)
    if first.lstrip().startswith("{"):
        found = json_files.read_lines(file, STANDARD_INPUT, config, columns)
    else:
        found = formats.text_lines(file, config)
    for row_number, row in found:
        yield f"stdin:{row_number}", row
    lines.detach()


def is_shards(source: str) -> bool:
    """Whether a source is a folder written by `jaxlm tokenize`: `shards:FOLDER`, or a folder with a manifest.

    Nothing else is read from a bucket.
    """
    if bucket_url(source) is not None:
        return True
    files = ("manifest.json", "progress.json")
    return source.startswith("shards:") or any(os.path.isfile(f"{source}/{f}") for f in files)


def shard_folder(source: str) -> pathlib.Path:
    """The folder of a source for which `is_shards` is true; of shards in a bucket their local copy.

    Raises:
        ValueError: there are no shards in the bucket, or they cannot be copied.
    """
    folder = source.removeprefix("shards:")
    url = bucket_url(folder)
    return pathlib.Path(folder) if url is None else cache.shards(url)


def _paths(source: str) -> list[str]:
    if os.path.exists(source) or not glob.has_magic(source):
        return [source]
    paths = sorted(path for path in glob.glob(source, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise ValueError(f"{source}: no file matches this pattern")
    return paths


def _builtin(
    source: str, config: DataConfig, columns: Mapping[str, Column]
) -> Iterator[tuple[str, dict]]:
    name = source.removeprefix("builtin:")
    for example in builtin.read(name):
        row = {config.text_column: example.text}
        if example.label is not None:
            row[config.label_column] = example.label
        formats.check_columns(source, tuple(row), columns, config)
        yield f"{name}/{example.name}", row


def _hub(
    source: str, columns: Mapping[str, Column], config: DataConfig, split: Split
) -> Iterator[tuple[str, dict]]:
    # imported here because it is slow to import and rarely needed
    import datasets

    name, _, variant = source.removeprefix("hub:").partition(":")
    try:
        splits = datasets.load_dataset(name, variant or None)
    except Exception as e:  # network, hub and format errors have no common class
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise ValueError(
            f"{source}: cannot be loaded from the Hugging Face hub; check the name and the network: {reason}"
        ) from e
    hub_split = next((name for name in _HUB_SPLITS[split] if name in splits), None)
    if hub_split is None:
        raise ValueError(f"{source}: no split for {split}; it has: {', '.join(splits)}")
    rows = splits[hub_split]
    formats.check_columns(source, tuple(rows.column_names), columns, config)
    wanted = sorted(stored_names(columns, rows.column_names))
    rows = rows.select_columns(wanted)
    # class names of labels and tags that are stored as integers
    names = {
        column: class_names for column in wanted if (class_names := _class_names(rows, column))
    }
    for row_number, row in enumerate(rows, 1):
        for column, class_names in names.items():
            row[column] = _named(row[column], class_names)
        yield f"{source}/{hub_split}:{row_number}", row


def _class_names(rows: Any, column: str) -> list[str] | None:
    """The class names of a column of classes or of lists of classes; None for other types."""
    feature = rows.features[column]
    return getattr(getattr(feature, "feature", feature), "names", None)


def _named(code: Any, names: list[str]) -> Any:
    """The name of a class, or of each class in a list; None for -1, which marks a missing label."""
    if isinstance(code, list):
        return [_named(item, names) for item in code]
    return None if code is None or code < 0 else names[code]
