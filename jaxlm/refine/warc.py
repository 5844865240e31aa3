"""The pages of WARC and ARC files, also damaged ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from jaxlm.refine.decoding import decode

# record types that hold a page: as fetched, without HTTP around it, and as text (WET)
_PAGES = ("response", "resource", "revisit", "conversion")
_HTML = ("text/html", "application/xhtml+xml")
_GZIP = b"\x1f\x8b\x08"
# bytes that are searched at a time for the next record
_SCAN = 1 << 20


class Page(NamedTuple):
    """A page; `fault` says why it has no text."""

    identity: str
    url: str | None
    date: str | None
    text: str
    html: bool
    # bytes as received
    size: int
    fault: str | None = None


def pages(file: BinaryIO, most_bytes: int) -> Iterator[Page]:
    """Every page of a file that can seek; what is damaged is passed over and reported as a page with a fault."""
    for record in _records(file):
        if record is None:
            yield Page("", None, None, "", False, 0, "damaged")
        elif record.rec_type in _PAGES:
            yield _page(record, most_bytes)


def _page(record: Any, most_bytes: int) -> Page:
    headers = record.rec_headers
    identity = headers.get_header("WARC-Record-ID") or ""
    url = headers.get_header("WARC-Target-URI") or headers.get_header("uri")
    date = headers.get_header("WARC-Date") or headers.get_header("archive-date")
    http = record.http_headers
    declared = (http.get_header("Content-Type") if http else None) or (
        record.content_type if record.rec_type != "response" else None
    )
    fault = None
    data = b""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            data = _read(record.content_stream(), most_bytes + 1)
    except Exception:
        # errors of zlib, brotli and warcio's own; what came before is not a whole page
        fault = "damaged"
    if len(data) <= most_bytes and not _is_complete(record):
        fault = "damaged"
    kind = headers.get_header("WARC-Identified-Payload-Type") or (declared or "").split(";")[0]
    kind = kind.strip().lower() or _sniff(data)
    status = http.get_statuscode() if http else ""
    html = kind in _HTML
    if fault is None:
        if record.rec_type == "revisit":
            fault = "revisit"
        elif status and not status.startswith("2"):
            fault = "http_status"
        elif not html and not (kind == "text/plain" and record.rec_type == "conversion"):
            fault = "not_html"
        elif len(data) > most_bytes:
            fault = "too_large"
        elif not data.strip():
            fault = "empty"
    size = min(len(data), most_bytes)
    text = "" if fault else decode(data, declared)
    return Page(identity, url, date, text, html, size, fault)


def _read(stream: Any, most: int) -> bytes:
    parts = []
    while most and (part := stream.read(min(most, 1 << 16))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _sniff(data: bytes) -> str:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    looks = start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))
    return "text/html" if looks or b"<html" in start else "unknown"


def _records(file: BinaryIO) -> Iterator[Any]:
    """Records of warcio; None for each place where a record is lost.

    warcio ends silently where it cannot decompress or where a record is cut short: then the search goes on.
    """
    compressed = file.read(3) == _GZIP
    start: int | None = 0
    lost = False
    while start is not None:
        file.seek(start)
        last, count, complete = start, 0, True
        try:
            for record, offset in _warcio(file):
                last, count = offset, count + 1
                yield record
                complete = _is_complete(record)
            failed = False
        except Exception as e:
            # errors of zlib, of warcio, and ValueErrors of lengths that are no numbers
            if "non-chunked gzip" in str(e) and start == 0:
                yield from itertools.islice(_in_one_stream(file), count, None)
                return
            failed = True
        start = _next_record(file, last + 1, compressed) if failed or compressed else None
        # a record that is cut short reports itself
        missing = (complete and (failed or start is not None)) or (
            not count and bool(last or failed)
        )
        if count:
            lost = False
        if missing and not lost:
            lost = True
            yield None


def _warcio(file: BinaryIO) -> Iterator[tuple[Any, int]]:
    """Records with their offsets; what warcio prints about odd headers, once a record, is not shown."""
    from warcio.archiveiterator import ArchiveIterator

    with contextlib.redirect_stderr(io.StringIO()):
        iterator = ArchiveIterator(file, arc2warc=True)
    while True:
        with contextlib.redirect_stderr(io.StringIO()):
            record = next(iterator, None)
        if record is None:
            break
        yield record, iterator.offset
    # what is left after the last whole record is one that was cut short before its text
    file.seek(iterator.offset)
    if file.read(64).strip(b"\r\n\0"):
        raise EOFError("the last record is not whole")


def _is_complete(record: Any) -> bool:
    """Whether the record is as long as it says; reads the rest of it."""
    stream = record.raw_stream
    with contextlib.redirect_stderr(io.StringIO()):
        while stream.read(1 << 16):
            pass
    return not getattr(stream, "limit", 0)


def _in_one_stream(file: BinaryIO) -> Iterator[Any]:
    """Records of a file that is compressed as a whole, where warcio expects each to be compressed alone."""
    file.seek(0)
    try:
        for record, _ in _warcio(gzip.GzipFile(fileobj=file)):  # type: ignore[arg-type]
            yield record
    except Exception:
        yield None


def _next_record(file: BinaryIO, start: int, compressed: bool) -> int | None:
    """Offset of the next place at or after `start` where a record begins."""
    mark = _GZIP if compressed else b"\nWARC/1."
    offset = start
    while True:
        file.seek(offset)
        block = file.read(_SCAN)
        if len(block) < len(mark):
            return None
        place = block.find(mark)
        while place >= 0:
            if not compressed:
                return offset + place + 1
            if _begins_record(file, offset + place):
                return offset + place
            place = block.find(mark, place + 1)
        offset += max(1, len(block) - len(mark) + 1)


def _begins_record(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    try:
        head = zlib.decompressobj(31).decompress(file.read(4096), 64)
    except zlib.error:
        return False
    # a line of an ARC file begins with the URL
    return head.startswith((b"WARC/", b"http://", b"https://", b"filedesc://", b"dns:"))
