"""Rows of one file, checked: every reader yields the rows it can read and a BadRow for each one it cannot.

What makes a whole file unreadable (it is missing, is a folder, lacks a column) is raised as a ValueError at once.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import itertools
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from jaxlm.config.data import DataConfig


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    # a few words, the same for all rows with this fault
    reason: str
    # what differs from row to row, or what to do
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


# the line (or row, in a file without lines) with the row's columns
Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]

_NOT_UTF8 = BadRow("not UTF-8", "convert the file, for instance with iconv")
# how errors="surrogateescape" shows the bytes that are not UTF-8
_ESCAPED = re.compile("[\udc80-\udcff]")
# characters of one field: a quote that is never closed would swallow the rest of the file
_LONGEST_FIELD = 1 << 24
_BLANKS = re.compile(r"[ \t\n\r]*")


def rows(path: str, config: DataConfig, columns: tuple[str, ...]) -> Rows:
    """The rows of a file, read as the ending of its name says.

    Raises:
        ValueError: the file cannot be read at all.
    """
    if os.path.isdir(path):
        raise ValueError(f"{path}: a folder, not a file; give a pattern such as {path}/*.jsonl")
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
    packing = suffixes[-1] if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    kind = "".join((suffixes[:-1] if packing else suffixes)[-1:])
    if kind == ".parquet" and not packing:
        return _parquet(path, columns)
    if kind not in _TEXT_READERS:
        known = ", ".join(_TEXT_READERS)
        raise ValueError(
            f"{path}: unknown kind of file; known are {known} (each also .gz or .zst), .parquet"
        )
    return _open(path, packing, _TEXT_READERS[kind], config, columns)


def _open(path: str, packing: str, reader: Callable, config: DataConfig, columns: tuple) -> Rows:
    opener: Any = {"": open, ".gz": gzip.open, ".zst": _open_zstd}[packing]
    try:
        # lines may end in \n, \r\n or \r; a byte order mark is dropped
        with opener(path, "rb") as raw:
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape")
            yield from reader(file, path, config, columns)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise ValueError(f"{path}: damaged gzip file: {e}") from e
    except OSError as e:
        raise ValueError(f"{path}: cannot be read: {e.strerror or e}") from e


def _open_zstd(path: str, mode: str) -> Any:
    # Python has no zstd of its own before 3.14
    import pyarrow

    assert mode == "rb"
    return pyarrow.input_stream(path, compression="zstd")


def check_columns(path: str, has: tuple[str, ...], needs: tuple[str, ...], hint: str = "") -> None:
    """Raises a ValueError that names the columns there are if one that is needed is not among them."""
    for column in needs:
        if list(has).count(column) != 1:
            fault = "no column" if column not in has else "more than one column"
            shown = ", ".join(name[:40] for name in has[:20])
            raise ValueError(
                f"{path}: {fault} {column!r}; it has: {shown}; "
                f"set data.text_column, data.pair_column or data.label_column{hint}"
            )


def _text(file: TextIO, path: str, config: DataConfig, columns: tuple) -> Rows:
    check_columns(path, (config.text_column,), columns)
    units = {"file": _whole, "line": _lines, "paragraph": _paragraphs}[config.text_unit]
    for number, text in units(file):
        bad = _ESCAPED.search(text)
        if bad:
            yield number + text.count("\n", 0, bad.start()), _NOT_UTF8
        else:
            yield number, {config.text_column: text}


def _whole(file: TextIO) -> Iterator[tuple[int, str]]:
    text = file.read()
    if text:
        yield 1, text


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        if not line.isspace():
            yield number, line.removesuffix("\n")


def _paragraphs(file: TextIO) -> Iterator[tuple[int, str]]:
    held: list[str] = []
    for number, line in enumerate(itertools.chain(file, ["\n"]), 1):
        if not line.isspace():
            held.append(line)
        elif held:
            yield number - len(held), "".join(held).removesuffix("\n")
            held = []


def _json_lines(file: TextIO, path: str, config: DataConfig, columns: tuple) -> Rows:
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        if not line.isascii() and _ESCAPED.search(line):
            yield number, _NOT_UTF8
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as e:
            yield number, BadRow("broken JSON", _json_fault(e))
        else:
            yield number, _object(value)


def _json(file: TextIO, path: str, config: DataConfig, columns: tuple) -> Rows:
    """An array of objects; a file that begins with an object is read as JSON lines."""
    text = file.read()
    place = _after_blanks(text, 0)
    if text[place : place + 1] != "[":
        yield from _json_lines(io.StringIO(text), path, config, columns)
        return
    place = _after_blanks(text, place + 1)
    if text[place : place + 1] == "]":
        return
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    while True:
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as e:
            yield line, BadRow("broken JSON", f"{_json_fault(e)}; the rest of the file is left out")
            return
        yield line, _NOT_UTF8 if _ESCAPED.search(text, counted, place) else _object(value)
        place = _after_blanks(text, place)
        sign = text[place : place + 1]
        if sign == "]":
            return
        if sign != ",":
            yield (
                line,
                BadRow("broken JSON", "no , or ] behind this; the rest of the file is left out"),
            )
            return
        place = _after_blanks(text, place + 1)


def _after_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    assert found
    return found.end()


def _object(value: Any) -> dict[str, Any] | BadRow:
    if isinstance(value, dict):
        return value
    return BadRow("not a JSON object", f"a row is {{...}}, this one is a {type(value).__name__}")


def _json_fault(e: Exception) -> str:
    if isinstance(e, json.JSONDecodeError):
        return f"{e.msg} (column {e.colno})"
    return "nested too deeply" if isinstance(e, RecursionError) else str(e)


def _csv(file: TextIO, path: str, config: DataConfig, columns: tuple) -> Rows:
    """Commas and quotes, as spreadsheets write them."""
    return _table(csv.reader(file, strict=True), path, config, columns)


def _tsv(file: TextIO, path: str, config: DataConfig, columns: tuple) -> Rows:
    """Tabs and no quoting: a quote is part of the text."""
    return _table(csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE), path, config, columns)


def _table(reader: Any, path: str, config: DataConfig, columns: tuple) -> Rows:
    csv.field_size_limit(_LONGEST_FIELD)
    header = config.columns
    if header is not None:
        check_columns(path, header, columns, " or data.columns")
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield number, BadRow("broken row", f"{e}; is a quote left open?")
            continue
        if not fields:  # a blank line
            continue
        if header is None:
            header = tuple(name.strip() for name in fields)
            check_columns(path, header, columns, ", or data.columns if it has no header line")
        elif len(fields) != len(header):
            detail = f"{len(fields)} where the header has {len(header)}"
            yield number, BadRow("wrong number of fields", detail)
        elif any(not field.isascii() and _ESCAPED.search(field) for field in fields):
            yield number, _NOT_UTF8
        else:
            yield number, dict(zip(header, fields))


def _parquet(path: str, columns: tuple[str, ...]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        check_columns(path, tuple(file.schema_arrow.names), columns)
        number = 0
        for batch in file.iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a sound parquet file: {' '.join(str(e).split())}") from e


_TEXT_READERS = {".txt": _text, ".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _tsv}
