"""The bytes of a web page as text."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator

# bytes in which a page may declare its encoding; the HTML standard looks at 1,024, browsers wait for more
_HEAD = 4096
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# UTF-16 without a mark: a page begins with a less-than sign
_UTF16_STARTS = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w.:+-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:+-]+)""", re.IGNORECASE)
_META = re.compile(rb"<meta\b[^>]{0,1000}", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?(?:-->|$)", re.DOTALL)
# an encoding that is declared -> what browsers read (WHATWG Encoding Standard, section 4.2), by Python's names; an
# encoding that is not here is not believed: Python's codecs include zip and unicode_escape
_READ_AS = {
    name: name
    for name in (
        *(f"cp125{i}" for i in range(9)),
        *(f"iso8859-{i}" for i in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        *("utf-8", "utf-16-le", "utf-16-be", "koi8-r", "koi8-u", "mac-cyrillic", "cp866"),
        *("gb18030", "euc_jp", "iso2022_jp", "cp932", "cp949", "cp874", "big5hkscs"),
    )
} | {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "johab": "cp949",
    "utf-16": "utf-16-le",
}
# labels of the web that Python has no codec for
_LABELS = {
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "x-gbk": "gb18030",
    "x-x-big5": "big5hkscs",
    "big5-hkscs": "big5hkscs",
    "ks_c_5601-1987": "cp949",
    "windows-949": "cp949",
    "windows-874": "cp874",
    "x-cp1251": "cp1251",
    "x-cp1252": "cp1252",
    "unicode-1-1-utf-8": "utf-8",
    "x-mac-cyrillic": "mac-cyrillic",
    "utf8mb4": "utf-8",
}
# a declared encoding is believed if at most this fraction of the characters cannot be read
_MAX_UNREADABLE = 0.01
# bytes that the detector looks at
_DETECTED = 100_000


def decode(data: bytes, content_type: str | None = None) -> str:
    """The text of a page in any encoding; characters that cannot be read become U+FFFD.

    A byte order mark, or a first character in UTF-16, is believed first; then UTF-8 if all bytes are valid; then the
    HTTP header, the meta tag or the XML declaration, if at most 1 % is unreadable with it; then a detector's guess,
    which also decides between declarations. A character that is cut at the end, as in truncated pages, is dropped.

    Args:
        data: body of the response, decompressed.
        content_type: its HTTP header, such as `text/html; charset=gb2312`.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _read(data[len(mark) :], encoding)
    if data[:2] in _UTF16_STARTS:
        return _read(data, _UTF16_STARTS[data[:2]])
    if unmarked := _unmarked_utf16(data):
        return _read(data, unmarked)
    declared = list(dict.fromkeys(_declared(data, content_type)))
    # seven-bit text in escape sequences is valid UTF-8 too
    if not (data.isascii() and "iso2022_jp" in declared):
        with contextlib.suppress(UnicodeDecodeError):
            return _read(data, "utf-8", "strict")
    texts = {encoding: _read(data, encoding) for encoding in declared}
    fitting = [e for e in declared if _unreadable(texts[e]) <= _MAX_UNREADABLE]
    if len(fitting) == 1:
        return texts[fitting[0]]
    detected = list(_detected(data))
    if fitting:
        # a server's default header beside the page's own tag, for instance
        return texts[next((e for e in detected if e in fitting), fitting[0])]
    texts |= {e: _read(data, e) for e in (*detected, "utf-8", "cp1252") if e not in texts}
    # of equal ones the first
    return min(texts.values(), key=_unreadable)


def _unreadable(text: str) -> float:
    return text.count("\ufffd") / max(len(text), 1)


def _read(data: bytes, encoding: str, errors: str = "replace") -> str:
    # not final: an incomplete last character is no error
    return codecs.getincrementaldecoder(encoding)(errors).decode(data)


def _unmarked_utf16(data: bytes) -> str | None:
    """UTF-16 if many of every second byte are zero, as in markup, and hardly any of the others."""
    head = data[:400]
    for start, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        zeros, others = head[start::2].count(0), head[1 - start :: 2].count(0)
        if zeros >= max(8, len(head) // 10) and zeros > 8 * others:
            return encoding
    return None


def _declared(data: bytes, content_type: str | None) -> Iterator[str]:
    """The encodings that a page declares, the most reliable first."""
    if content_type and (found := _CHARSET.search(content_type.encode("utf-8", "replace"))):
        yield from _known(found[1])
    head = data[:_HEAD]
    if found := _XML.match(head):
        yield from _in_ascii(found[1])
    for tag in _META.findall(_COMMENT.sub(b"", head)):
        if found := _CHARSET.search(tag):
            yield from _in_ascii(found[1])


def _in_ascii(label: bytes) -> Iterator[str]:
    """An encoding that is declared in ASCII letters, which UTF-16 does not have."""
    for encoding in _known(label):
        yield "utf-8" if encoding.startswith("utf-16") else encoding


def _known(label: bytes) -> Iterator[str]:
    name = label.decode("ascii", "replace").strip().lower()
    if name in _LABELS:
        yield _LABELS[name]
        return
    try:
        name = codecs.lookup(name).name
    except (LookupError, ValueError):
        return
    if name in _READ_AS:
        yield _READ_AS[name]


def _detected(data: bytes) -> Iterator[str]:
    import cchardet

    found = cchardet.detect(data[:_DETECTED])["encoding"]
    if found:
        yield from _known(found.encode("ascii", "replace"))
