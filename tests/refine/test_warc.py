"""Pages of WARC files, whole and damaged."""

import collections
import gzip
import io
import random

import pytest

pytest.importorskip("datatrove")
pytest.importorskip("warcio")

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from jaxlm.refine import warc

HTML = "<html><body><p>Page {0}, 第{0}页.</p></body></html>"


def _body(i):
    noise = random.Random(i).randbytes(900).hex()
    return (HTML.format(i) + f"<!-- {noise} -->").encode()


def _write(pages=6, compressed=True, **other):
    """A file with an information record, pages, and a request beside each."""
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=compressed)
    writer.write_record(writer.create_warcinfo_record("test.warc", {"software": "test"}))
    for i in range(pages):
        kind, status, body = other.get(f"page{i}", ("text/html; charset=utf-8", "200 OK", _body(i)))
        headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        url = f"http://example.com/{i}"
        response = writer.create_warc_record(
            url, "response", payload=io.BytesIO(body), http_headers=headers
        )
        request = writer.create_warc_record(
            url,
            "request",
            http_headers=StatusAndHeaders("GET / HTTP/1.1", [], is_http_request=True),
        )
        writer.write_record(response)
        writer.write_record(request)
    return file.getvalue()


def _read(data, most=1 << 20):
    return list(warc.pages(io.BytesIO(data), most))


@pytest.mark.parametrize("compressed", [True, False])
def test_pages_with_their_urls(compressed):
    found = _read(_write(3, compressed))
    assert [page.url for page in found] == [f"http://example.com/{i}" for i in range(3)]
    assert [page.text for page in found] == [_body(i).decode() for i in range(3)]
    assert all(page.html and page.fault is None and page.date for page in found)
    assert len({page.identity for page in found}) == 3
    assert [page.size for page in found] == [len(_body(i)) for i in range(3)]


def test_one_gzip_stream_around_all_records():
    found = _read(gzip.compress(_write(4, compressed=False)))
    assert [page.text for page in found] == [_body(i).decode() for i in range(4)]


def test_what_is_no_page_has_a_fault():
    found = _read(
        _write(
            page0=("image/png", "200 OK", b"\x89PNG\r\n"),
            page1=("text/html", "404 Not Found", b"<html>gone</html>"),
            page2=("text/html", "200 OK", b"  \n"),
            page3=("text/html", "200 OK", b"<html>" + b"x" * 5000),
            page4=("", "200 OK", b"<!DOCTYPE html><html>no type</html>"),
        ),
        most=4000,
    )
    assert [page.fault for page in found] == [
        "not_html", "http_status", "empty", "too_large", None, None,
    ]  # fmt: skip
    # no more of a large page is read than the limit
    assert found[3].size == 4000


def _faults(data):
    return collections.Counter(page.fault for page in _read(data))


def test_only_the_damaged_record_is_lost():
    whole = _write(6)
    texts = [page.text for page in _read(whole)]
    starts = [i for i in range(len(whole)) if whole.startswith(b"\x1f\x8b\x08", i)]
    assert len(starts) >= 13
    # every third record in turn, at its start, in its middle
    for number in range(1, 13, 3):
        start, end = starts[number], starts[number + 1]
        for place in (start + 4, (start + end) // 2):
            data = bytearray(whole)
            data[place : place + 16] = b"\0" * 16
            found = _read(bytes(data))
            kept = [page.text for page in found if page.fault is None]
            assert set(kept) < set(texts) or kept == texts
            assert len(kept) >= 5
            is_page = number % 2 == 1
            if is_page and len(kept) == 5:
                assert _faults(bytes(data))["damaged"] == 1, (number, place)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_was_cut(compressed):
    whole = _write(6, compressed)
    for end in range(600, len(whole) - 900, 777):
        found = _read(whole[:end])
        kept = [page.text for page in found if page.fault is None]
        assert kept == [_body(i).decode() for i in range(len(kept))]
        assert len(found) - len(kept) <= 1


def test_garbage_before_a_record_and_instead_of_it():
    whole = _write(2, compressed=False)
    assert _faults(b"garbage" * 50 + b"\r\n" + whole) == {"damaged": 1, None: 2}
    assert _faults(b"neither of them") == {"damaged": 1}
    assert _faults(b"") == {}


def test_a_bomb_is_read_only_to_the_limit():
    bomb = gzip.compress(b"<html>" + b"a" * 50_000_000)
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=True)
    headers = StatusAndHeaders(
        "200 OK",
        [("Content-Type", "text/html"), ("Content-Encoding", "gzip")],
        protocol="HTTP/1.1",
    )
    writer.write_record(
        writer.create_warc_record(
            "http://example.com", "response", payload=io.BytesIO(bomb), http_headers=headers
        )
    )
    (page,) = _read(file.getvalue(), most=1000)
    assert (page.fault, page.size) == ("too_large", 1000)
