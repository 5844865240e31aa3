"""The documents of WARC, HTML, JSONL and parquet files, divided among tasks."""

from __future__ import annotations

import codecs
import dataclasses
import gzip
import io
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import fsspec
import orjson
from datatrove.data import Document

from jaxlm.refine import warc
from jaxlm.refine.decoding import decode

# what the end of a name, without .gz or .zst, says about a file
KINDS = {
    ".warc": "warc",
    ".arc": "warc",
    ".wet": "warc",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".zst")
# metadata of a document that came with it under the names that our stages set
_RESERVED = ("html", "position", "removed_lines")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Record(NamedTuple):
    """One record of a file: a document, or the reason why there is none, with its size in bytes."""

    document: Document | None
    fault: str
    size: int
    # file and number, where there is no document
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The files to refine, and how to read them."""

    # in order, each with its kind
    files: tuple[tuple[str, str], ...]
    text_column: str = "text"
    most_bytes: int = 1 << 24

    @classmethod
    def of(
        cls, paths: Sequence[str], text_column: str = "text", most_bytes: int = 1 << 24
    ) -> Inputs:
        """All files that are named, match a pattern, or lie in a folder that is named.

        Raises:
            ValueError: nothing is there, or a file is of an unknown kind.
        """
        files: dict[str, str] = {}
        for path in paths:
            found = _found(path)
            if not found:
                raise ValueError(f"{path}: no {', '.join(KINDS)} files there (each may end in .gz)")
            files.update(found)
        return cls(tuple(files.items()), text_column, most_bytes)

    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(_file_system(path).size(path) or 0) for path, _ in self.files)

    def versions(self) -> list[str]:
        """Size and time of change of each file, which tell whether it is still the same."""
        infos = [_file_system(path).info(path) for path, _ in self.files]
        times = ("mtime", "LastModified", "updated", "last_modified")
        return [f"{i.get('size')} {next((i[t] for t in times if t in i), '')}" for i in infos]

    def records(self, task: int, tasks: int) -> Iterator[Record]:
        """The records of one task: whole files, or every n-th record where there are more tasks than files."""
        parts = -(-tasks // len(self.files))
        units = [(file, part) for part in range(parts) for file in self.files]
        for (path, kind), part in units[task::tasks]:
            yield from self._file(path, kind, part, parts)

    def _file(self, path: str, kind: str, part: int, parts: int) -> Iterator[Record]:
        reader = {"warc": _warc, "html": _html, "jsonl": _jsonl, "parquet": _parquet}[kind]
        for i, record in enumerate(reader(path, self)):
            if i % parts == part:
                yield record if record.document else record._replace(where=f"{path}#{i}")


def _file_system(path: str) -> Any:
    return fsspec.core.url_to_fs(path)[0]


def _kind(path: str) -> str | None:
    suffixes = [s.lower() for s in pathlib.PurePath(path).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def _found(path: str) -> dict[str, str]:
    system, inner = fsspec.core.url_to_fs(path)
    if any(c in path for c in "*?["):
        names = [name for name in system.glob(inner) if not system.isdir(name)]
    elif system.isdir(inner):
        if system.exists(f"{inner}/recipe.json") and system.isdir(f"{inner}/documents"):
            raise ValueError(f"{path}: a folder of jaxlm refine: name {path}/documents")
        names = [name for name in system.find(inner) if _kind(name)]
    elif system.exists(inner):
        names = [inner]
    else:
        raise ValueError(f"{path}: no such file or folder")
    for name in names:
        if _kind(name) is None:
            raise ValueError(
                f"{name}: unknown kind of file; known are {', '.join(KINDS)}, each also with .gz"
            )
        if isinstance(system, fsspec.implementations.local.LocalFileSystem) and not os.access(
            name, os.R_OK
        ):
            raise ValueError(f"{name}: cannot be read: permission denied")
    whole = sorted(system.unstrip_protocol(n) if "://" in path else n for n in names)
    return {name: str(_kind(name)) for name in whole}


def _open(path: str) -> BinaryIO:
    return fsspec.open(path, "rb").open()  # type: ignore[no-any-return]


def _warc(path: str, inputs: Inputs) -> Iterator[Record]:
    with _open(path) as file:
        for i, page in enumerate(warc.pages(file, inputs.most_bytes)):
            if page.fault:
                yield Record(None, page.fault, page.size)
                continue
            metadata = {"url": page.url, "date": page.date, "file": path}
            metadata = {key: value for key, value in metadata.items() if value}
            yield _document(page.text, page.identity or f"{path}#{i}", metadata, page.html)


def _html(path: str, inputs: Inputs) -> Iterator[Record]:
    try:
        with _open(path) as file:
            data = decompressed(file, path).read(inputs.most_bytes + 1)
    except (OSError, EOFError, zlib.error):
        yield Record(None, "damaged", 0)
        return
    if len(data) > inputs.most_bytes:
        yield Record(None, "too_large", inputs.most_bytes)
    elif not data.strip():
        yield Record(None, "empty", len(data))
    else:
        yield _document(decode(data, None), path, {"file": path}, True)


def _jsonl(path: str, inputs: Inputs) -> Iterator[Record]:
    with _open(path) as file:
        try:
            for i, line in enumerate(_lines(file, path, inputs.most_bytes)):
                if line.strip():
                    yield _row(line, f"{path}#{i}", inputs)
        except (OSError, EOFError, zlib.error):
            # the rest of the file
            yield Record(None, "damaged", 0)


# byte order marks, and the first character of a row without one
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")


def _lines(file: BinaryIO, path: str, most: int) -> Iterator[bytes]:
    """Lines without their ends; of one that is longer than `most` only so much that it is seen to be too long."""
    stream = decompressed(file, path)
    is_first = True
    while line := stream.readline(most + 2):
        if is_first and line.startswith(_UTF16):
            raise ValueError(
                f"{path}: is UTF-16, and JSONL is read as UTF-8: convert it (iconv -f UTF-16 -t UTF-8)"
            )
        is_first = False
        yield line
        while not line.endswith(b"\n") and (line := stream.readline(most)):
            pass


def decompressed(file: BinaryIO, path: str) -> Any:
    """A stream with `read`, `readline` and lines, of a file whose name may end in .gz or .zst."""
    if path.lower().endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if path.lower().endswith(".zst"):
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return io.BufferedReader(reader)
    return file


def _row(line: bytes, identity: str, inputs: Inputs) -> Record:
    if len(line) > inputs.most_bytes:
        return Record(None, "too_large", inputs.most_bytes)
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Record(None, "damaged", len(line))
    if not isinstance(row, dict):
        return Record(None, "damaged", len(line))
    return _of_row(row, identity, inputs)


def _parquet(path: str, inputs: Inputs) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    i = 0
    with _open(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            if inputs.text_column not in table.schema_arrow.names:
                raise ValueError(
                    f"{path}: no column {inputs.text_column!r}; it has "
                    f"{', '.join(table.schema_arrow.names)}; --text-column names the text"
                )
            for batch in table.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield _of_row(row, f"{path}#{i}", inputs)
                    i += 1
        except (OSError, pyarrow.ArrowInvalid):
            yield Record(None, "damaged", 0)


def _of_row(row: dict[str, Any], identity: str, inputs: Inputs) -> Record:
    text = row.pop(inputs.text_column, None)
    if not isinstance(text, str):
        return Record(None, "no_text", 0)
    if not text.strip():
        return Record(None, "empty", len(text.encode("utf-8", "replace")))
    given = row.pop("id", None)
    nested = row.pop("metadata", None)
    metadata = {**(nested if isinstance(nested, dict) else {}), **row}
    metadata = {k: v for k, v in metadata.items() if k not in _RESERVED and v is not None}
    for name in ("url", "language"):
        if not isinstance(metadata.get(name, ""), str):
            del metadata[name]
    if not isinstance(metadata.get("language_score", 0.0), float | int):
        del metadata["language_score"]
    try:
        # what cannot be written: half characters, huge numbers, deep nesting
        orjson.dumps([metadata, given], default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        return Record(None, "odd_metadata", size_of(text))
    record = _document(text, identity if given is None else str(given), metadata, False)
    return Record(None, "too_large", record.size) if record.size > inputs.most_bytes else record


def _document(text: str, identity: str, metadata: dict[str, Any], html: bool) -> Record:
    # halves of surrogate pairs, which JSON can spell, are no text and cannot be written
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if html:
        metadata["html"] = True
    return Record(Document(text=text, id=identity, metadata=metadata), "", size_of(text))


def size_of(text: str) -> int:
    """Bytes of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
