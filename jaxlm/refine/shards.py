"""The files that a phase writes: one a task, whole or not there, with the same bytes each time."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import orjson
import zstandard
from datatrove.data import Document

from jaxlm.refine.accounts import Amount
from jaxlm.refine.readers import decompressed, size_of

Format = Literal["jsonl", "parquet"]
SUFFIXES: dict[Format, str] = {"jsonl": ".jsonl.zst", "parquet": ".parquet"}
# rows of a group in parquet
_ROWS = 4096


def path_of(folder: pathlib.Path, task: int, form: Format = "jsonl") -> pathlib.Path:
    """The file of a task."""
    return folder / f"{task:05d}{SUFFIXES[form]}"


def _temporary(path: pathlib.Path) -> pathlib.Path:
    """A name of this process alone; what a process that was killed left there is removed."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class Writer:
    """JSON objects as lines, compressed; the file gets its name when it is closed without an error."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._temporary = _temporary(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._temporary, "wb")  # noqa: SIM115
        self._stream = zstandard.ZstdCompressor(level=3).stream_writer(self._file)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self._stream.write(_dumps(row) + b"\n")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._stream.close()
            os.replace(self._temporary, self._path)
        else:
            # closing would flush, and a full disk would hide the first error
            with contextlib.suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)


class ParquetWriter:
    """Rows as a parquet file; everything besides text, id and what every document has is one column of JSON."""

    _COLUMNS = ("text", "id", "url", "date", "language", "language_score", "metadata")

    def __init__(self, path: pathlib.Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self._path = path
        self._temporary = _temporary(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"language_score": pyarrow.float32()}
        self._schema = pyarrow.schema(
            [(name, kinds.get(name, pyarrow.string())) for name in self._COLUMNS]
        )
        self._writer = pyarrow.parquet.ParquetWriter(
            self._temporary, self._schema, compression="zstd"
        )
        self._rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        known = {name: row.get(name) for name in self._COLUMNS}
        rest = {key: value for key, value in row.items() if key not in self._COLUMNS}
        known["metadata"] = _dumps(rest).decode() if rest else None
        if not isinstance(known["date"], str | None):
            known["date"] = str(known["date"])
        self._rows.append(known)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._flush()
            self._writer.close()
            os.replace(self._temporary, self._path)
        else:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._temporary.unlink(missing_ok=True)


def _dumps(row: dict[str, Any]) -> bytes:
    # metadata of others may hold dates and numbers of arrays
    return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS)


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of `Writer`."""
    with open(path, "rb") as file:
        for line in decompressed(file, path.name):
            yield orjson.loads(line)


def documents(path: pathlib.Path) -> Iterator[Document]:
    """The documents of a file of a phase, which know their positions in it."""
    for i, row in enumerate(read(path)):
        text, identity = row.pop("text"), row.pop("id")
        yield Document(text=text, id=identity, metadata={**row, "position": i})


def as_row(document: Document) -> dict[str, Any]:
    """A document as a row."""
    metadata = {k: v for k, v in document.metadata.items() if k != "position"}
    metadata = {k: v for k, v in metadata.items() if k not in ("text", "id")}
    return {"text": document.text, "id": document.id, **metadata}


def count(path: pathlib.Path) -> Amount:
    """Documents and bytes of text in a file, read from the disk."""
    amount = Amount()
    for text in _texts(path):
        amount.add(1, size_of(text))
    return amount


def _texts(path: pathlib.Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["text"]):
            yield from batch.column(0).to_pylist()
    else:
        for row in read(path):
            yield row["text"]
