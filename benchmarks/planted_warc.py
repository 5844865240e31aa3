"""Pages of planted.py as WARC records: the text in an article, around it what sites have on every page."""

from __future__ import annotations

import gzip
import html
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planted_faults import Phrases

_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title><style>nav li {{ display: inline }}</style>
<script>window.shown = "{title}";</script></head>
<body><nav><ul>{menu}</ul></nav>
<main><article>
{text}
</article></main>
<aside><ul>{more}</ul></aside>
<footer><p>{footer}</p></footer>
</body></html>
"""


def records(
    made: Sequence[Mapping[str, Any]], phrases: Phrases, rng: random.Random
) -> Iterator[bytes]:
    """Response records, each a gzip member; that of a damaged page has wrong bytes in its middle."""
    for page in made:
        content = document(page, phrases, rng).encode()
        if page["fault"] == "truncated":
            content = content[: len(content) * 2 // 3]
        member = gzip.compress(_record(page, content), 6, mtime=0)
        if page["fault"] == "damaged":
            middle = len(member) // 2
            member = member[:middle] + bytes(40) + member[middle + 40 :]
        yield member


def document(page: Mapping[str, Any], phrases: Phrases, rng: random.Random) -> str:
    """The page as HTML."""
    lines = [html.escape(line) for line in page["text"].split("\n") if line.strip()]
    links = rng.sample(phrases.menu, 12)
    items = [f'<li><a href="/{i}">{html.escape(word)}</a></li>' for i, word in enumerate(links)]
    return _PAGE.format(
        title=f"Page {page['url'].rsplit('/', 1)[-1].removesuffix('.html')}",
        menu="".join(items[:7]),
        text="\n".join(f"<p>{line}</p>" for line in lines),
        more="".join(items[7:]),
        footer=html.escape(phrases.space.join(phrases.menu[-6:])),
    )


def _record(page: Mapping[str, Any], content: bytes) -> bytes:
    http = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
        + f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:{page['id']}>\r\n"
        "WARC-Date: 2026-11-27T00:00:00Z\r\n"
        f"WARC-Target-URI: {page['url']}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        "WARC-Identified-Payload-Type: text/html\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"
