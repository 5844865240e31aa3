"""Readers of one file: each yields the valid rows, and a BadRow for every invalid one.

If the whole file is unreadable (it is missing, is a folder, lacks a column), the reader raises ValueError. The values
of a row are validated later, in `columns`, with the same rules for all formats.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TextIO

from jaxlm.config.data import DataConfig
from jaxlm.data import array_files, json_files
from jaxlm.data.bad_rows import NOT_UTF8, UNDECODED, BadRow, is_undecoded
from jaxlm.data.columns import Column, stored_name, stored_names
from jaxlm.data.values import Kind

__all__ = ["BadRow", "Columns", "Rows", "check_columns", "rows"]

# line number, or row number in a file without lines, from 1; and the values by column name
Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]
# role -> column
Columns = Mapping[str, Column]

# bytes of a decompressed file that are read however small the file is
_UNBOUNDED = 256 << 20
# limit in characters: an unclosed quote would otherwise consume the rest of the file
_LONGEST_FIELD = 1 << 24


def rows(path: str, config: DataConfig, columns: Columns) -> Rows:
    """The rows of a file; the suffix of its name determines the format.

    Raises:
        ValueError: the file cannot be read, or lacks a required column.
    """
    if os.path.isdir(path):
        raise ValueError(f"{path}: a folder, not a file; give a pattern such as {path}/*.jsonl")
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
    compression = suffixes[-1] if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    kind = "".join((suffixes[:-1] if compression else suffixes)[-1:])
    if kind in _BINARY_READERS and not compression:
        return _BINARY_READERS[kind](path, config, columns)
    if kind not in _TEXT_READERS:
        known = ", ".join(_TEXT_READERS)
        raise ValueError(
            f"{path}: unknown file type; supported are {known} (each also .gz or .zst), "
            f"{', '.join(_BINARY_READERS)}"
        )
    return _open(path, compression, _TEXT_READERS[kind], config, columns)


def lines(path: str) -> Generator[str, None, None]:
    """The lines of a text file of any name, which may be compressed, without their ends.

    Only a line feed ends a line, so that files stay parallel whatever other separators are in their text.
    """
    if os.path.isdir(path) or not os.path.exists(path):
        raise ValueError(
            f"{path}: {'a folder, not a file' if os.path.isdir(path) else 'no such file'}"
        )
    suffix = pathlib.Path(path).suffix.lower()
    compression = suffix if suffix in (".gz", ".zst") else ""
    with _readable(path), _OPENERS[compression](path) as raw:
        _check_text(path, raw)
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        for line in file:
            yield line.rstrip("\r\n")


def _open(
    path: str, compression: str, reader: Callable, config: DataConfig, columns: Columns
) -> Rows:
    # lines may end in \n, \r\n or \r; a byte order mark is dropped
    with _readable(path), _OPENERS[compression](path) as raw:
        _check_text(path, raw)
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape")
        yield from reader(file, path, config, columns)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns the errors of reading a file into a ValueError that names it."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise ValueError(f"{path}: damaged gzip file: {e}") from e
    except OSError as e:
        raise ValueError(f"{path}: cannot be read: {e.strerror or e}") from e


# first bytes of files that are no text -> what to do
_NO_TEXT = {
    b"\xff\xfe": "UTF-16, not UTF-8: convert it, for instance with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8: convert it, for instance with iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "compressed by gzip: add .gz to its name",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: add .zst to its name",
    b"PK\x03\x04": "a zip archive (as .xlsx, .docx and .npz are), not text: unpack it, or name it .npz",
    b"PAR1": "a parquet file: name it .parquet",
    b"%PDF": "a PDF file, not text",
    b"SQLite format 3": "a database, not text",
    b"\x93NUMPY": "an array file: name it .npy",
}


def _check_text(path: str, raw: Any) -> None:
    """Raises ValueError if a file that is to be read as text begins as no text does."""
    head = raw.peek(4096)[:4096]
    for magic, what in _NO_TEXT.items():
        if head.startswith(magic):
            raise ValueError(f"{path}: {what}")
    # a byte of zero alone may be dirt in a text
    zeros = head.count(0)
    if zeros > 1 + len(head) // 20 or (zeros and UNDECODED.search(_decoded(head))):
        raise ValueError(f"{path}: a binary file, not text (or text in UTF-16: convert it)")


def _decoded(data: bytes) -> str:
    """The text of some bytes, without a character that is cut at the end."""
    return data[:-3].decode("utf-8", "surrogateescape")


def _open_plain(path: str) -> io.BufferedReader:
    return open(path, "rb")


def _open_gzip(path: str) -> io.BufferedReader:
    return io.BufferedReader(_Bounded(gzip.open(path, "rb"), path))


def _open_zstd(path: str) -> io.BufferedReader:
    # the standard library has no zstd before Python 3.14
    import pyarrow

    return io.BufferedReader(_Bounded(pyarrow.input_stream(path, compression="zstd"), path))


class _Bounded(io.RawIOBase):
    """A decompressed file, which may not be so much larger than the file that it must be made to exhaust memory."""

    def __init__(self, stream: Any, path: str):
        super().__init__()
        self._stream, self._limit = stream, _Limit(path)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; raises ValueError beyond the limit."""
        data = self._stream.read(len(buffer))
        self._limit.count(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file too."""
        self._stream.close()
        super().close()


class _Limit:
    """Counts the bytes that come out of a compressed file: text becomes 3 to 10 times, never 100 times as long."""

    def __init__(self, path: str):
        self._path = path
        self._most = max(_UNBOUNDED, 100 * os.path.getsize(path))
        self._read = 0

    def count(self, size: int) -> None:
        """Counts bytes; raises ValueError if there are too many."""
        self._read += size
        if self._read > self._most:
            raise ValueError(
                f"{self._path}: becomes more than 100 times as long when it is decompressed, as no text does, so it is "
                "not read: decompress it yourself if you trust it"
            )


def check_columns(
    path: str, has: tuple[str, ...], columns: Columns, config: DataConfig, hint: str = ""
) -> None:
    """Checks that a file has every column of a task exactly once; optional columns may be missing.

    Raises:
        ValueError: a column is missing or duplicated; the message lists the columns of the file and the option to set.
    """
    options = {
        config.text_column: "set data.text_column",
        config.pair_column: "set data.pair_column",
        config.label_column: "set data.label_column",
    }
    for role, column in columns.items():
        count = has.count(stored_name(column.name, has))
        if count == 1 or (count == 0 and not column.required):
            continue
        fault = "more than one column" if count else "no column"
        shown = ", ".join(name[:40] for name in has[:20])
        option = options.get(column.name, f"the task reads its {role} from it")
        if column.option is not None:
            option = f"set --{column.option}"
        raise ValueError(f"{path}: {fault} {column.name!r}; it has: {shown}; {option}{hint}")


def _text(file: TextIO, path: str, config: DataConfig, columns: Columns) -> Rows:
    check_columns(path, (config.text_column,), columns, config)
    split = {"file": _whole, "line": _lines, "paragraph": _paragraphs}[config.text_unit]
    for line_number, text in split(file):
        bad = UNDECODED.search(text)
        if bad:
            yield line_number + text.count("\n", 0, bad.start()), NOT_UTF8
        else:
            yield line_number, {config.text_column: text}


def text_lines(file: Iterable[str], config: DataConfig) -> Rows:
    """A text a line."""
    for line_number, line in enumerate(file, 1):
        if not line.isspace():
            text = line.removesuffix("\n")
            yield line_number, NOT_UTF8 if is_undecoded(text) else {config.text_column: text}


def _whole(file: TextIO) -> Iterator[tuple[int, str]]:
    text = file.read()
    if text:
        yield 1, text


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    for line_number, line in enumerate(file, 1):
        if not line.isspace():
            yield line_number, line.removesuffix("\n")


def _paragraphs(file: TextIO) -> Iterator[tuple[int, str]]:
    lines: list[str] = []
    for line_number, line in enumerate(itertools.chain(file, ["\n"]), 1):
        if not line.isspace():
            lines.append(line)
        elif lines:
            yield line_number - len(lines), "".join(lines).removesuffix("\n")
            lines = []


def _csv(file: TextIO, path: str, config: DataConfig, columns: Columns) -> Rows:
    """Comma-separated values with quoting, as written by spreadsheets."""
    return _table(csv.reader(file, strict=True), path, config, columns)


def _tsv(file: TextIO, path: str, config: DataConfig, columns: Columns) -> Rows:
    """Tab-separated values without quoting: a quote is part of the text."""
    return _table(csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE), path, config, columns)


def _table(reader: Any, path: str, config: DataConfig, columns: Columns) -> Rows:
    csv.field_size_limit(_LONGEST_FIELD)
    header = config.columns
    if header is not None:
        check_columns(path, header, columns, config, " or data.columns")
    while True:
        line_number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield line_number, BadRow("broken row", f"{e}; is a quote not closed?")
            continue
        if not fields:  # a blank line
            continue
        if header is None:
            header = tuple(name.strip() for name in fields)
            if any(is_undecoded(name) for name in header):
                raise ValueError(f"{path}:{line_number}: {NOT_UTF8}")
            hint = ", or data.columns if it has no header line"
            check_columns(path, header, columns, config, hint)
        elif len(fields) != len(header):
            detail = f"{len(fields)} where the header has {len(header)}"
            yield line_number, BadRow("wrong number of fields", detail)
        elif any(is_undecoded(field) for field in fields):
            yield line_number, NOT_UTF8
        else:
            yield line_number, _parse_cells(dict(zip(header, fields)), columns)


def _parse_cells(row: dict[str, Any], columns: Columns) -> dict[str, Any] | BadRow:
    """A row of a table with the cells of typed columns parsed; all cells are strings at first."""
    for column in columns.values():
        if column.name in row and (column.kind not in ("text", "label") or not column.required):
            value = _parse_cell(row[column.name], column)
            if isinstance(value, BadRow):
                return value
            row[column.name] = value
    return row


# `float` accepts more: nan, infinity, 1_000
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _parse_cell(cell: str, column: Column) -> Any:
    """The value of a cell: a number, labels separated by |, or JSON; an empty cell is null."""
    text = cell.strip()
    if not text:
        return [] if column.kind == "labels" and column.required else None
    if column.kind in ("text", "label"):
        return cell
    if column.kind == "number":
        # other strings are rejected when the column is validated
        return float(text) if _NUMBER.fullmatch(text) else cell
    if column.kind == "labels" and not text.startswith("["):
        return text.split("|")
    value = json_files.decode(text)
    if isinstance(value, BadRow):
        return BadRow(f"{value.reason} in column {column.name!r}", value.detail)
    return value


def _conll(file: TextIO, path: str, config: DataConfig, columns: Columns) -> Rows:
    """Sentences with one word per line, separated by blank lines; the first field is the word, the last its tag.

    Fields are separated by tabs, or by spaces in a line without tabs. A file with one field per line has words only.
    Lines that begin with -DOCSTART- are skipped.
    """
    num_fields: int | None = None
    sentence: list[list[str]] = []
    first_line = 1
    bad: tuple[int, BadRow] | None = None
    for line_number, line in enumerate(itertools.chain(file, ["\n"]), 1):
        fields = _conll_fields(line)
        if not any(fields):
            if bad:
                yield bad
            elif sentence:
                yield first_line, _sentence(sentence, columns)
            sentence, bad = [], None
        elif fields[0] != "-DOCSTART-" and not bad:
            if num_fields is None:
                num_fields = len(fields)
                names = tuple(_conll_names(columns).values())[:num_fields]
                check_columns(path, names, columns, config)
            if not sentence:
                first_line = line_number
            sentence.append(fields)
            if is_undecoded(line):
                bad = line_number, NOT_UTF8
            elif len(fields) != num_fields or not all(fields):
                filled = sum(map(bool, fields))
                detail = f"{filled} where the first line of the file has {num_fields}"
                bad = line_number, BadRow("wrong number of columns", detail)


def _conll_fields(line: str) -> list[str]:
    line = line.strip(" \n")
    if "\t" in line:
        return [field.strip(" ") for field in line.split("\t")]
    return [field for field in line.split(" ") if field]


def _conll_names(columns: Columns) -> dict[Kind, str]:
    """The column names that a task uses for the words and tags of a file without a header."""
    names: dict[Kind, str] = {"words": "words", "tags": "tags"}
    for column in reversed(list(columns.values())):
        if column.kind in names:
            names[column.kind] = column.name
    return names


def _sentence(lines: list[list[str]], columns: Columns) -> dict[str, Any]:
    names = _conll_names(columns)
    row = {names["words"]: [fields[0] for fields in lines]}
    if len(lines[0]) > 1:
        row[names["tags"]] = [fields[-1] for fields in lines]
    return row


def _parquet(path: str, config: DataConfig, columns: Columns) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        has = tuple(file.schema_arrow.names)
        check_columns(path, has, columns, config)
        wanted = sorted(stored_names(columns, has))
        row_number = 0
        limit = _Limit(path)
        # few rows at a time: a column that repeats one long text is tiny in the file
        for batch in file.iter_batches(256, columns=wanted):
            for row in batch.to_pylist():
                row_number += 1
                limit.count(sum(len(x) for x in row.values() if isinstance(x, str)))
                yield row_number, row
    except (pyarrow.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a valid parquet file: {' '.join(str(e).split())}") from e


def _arrays(path: str, config: DataConfig, columns: Columns) -> Rows:
    wanted = {column.name: column.kind for column in columns.values()}
    has, arrays = array_files.load(path, wanted)
    check_columns(path, has, columns, config)
    for i in range(len(next(iter(arrays.values())))):
        # a list of numbers stays an array, any other item becomes a Python value
        row = {
            name: array[i] if wanted[name] == "numbers" else array[i].item()
            for name, array in arrays.items()
        }
        yield i + 1, row


_OPENERS: dict[str, Any] = {"": _open_plain, ".gz": _open_gzip, ".zst": _open_zstd}
_BINARY_READERS = {".parquet": _parquet, ".npy": _arrays, ".npz": _arrays}
_TEXT_READERS = {
    ".txt": _text,
    ".jsonl": json_files.read_lines,
    ".json": json_files.read_json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".conll": _conll,
    ".iob2": _conll,
    ".bio": _conll,
}
