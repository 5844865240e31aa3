"""Passages of text files and web pages, with the lines that they come from."""

from __future__ import annotations

import dataclasses
import html.parser
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Passage:
    """A piece of a document: its lines with their numbers."""

    file: str
    lines: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(text for _, text in self.lines)

    def line_at(self, offset: int) -> int:
        """The number of the document's line in which a character of `text` is."""
        return self.lines[self.text[:offset].count("\n")][0]


class _Html(html.parser.HTMLParser):
    """The visible text of a page as lines; a heading begins with #, an empty line ends a paragraph."""

    HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
    BREAKS = HEADINGS | {"p", "div", "li", "ul", "ol", "table", "tr", "br", "section", "article"}
    HIDDEN = frozenset(("script", "style", "title", "template"))

    def __init__(self, text: str):
        super().__init__()
        self.lines: list[tuple[int, str]] = []
        self._hidden = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._hidden += tag in self.HIDDEN
        if tag in self.BREAKS:
            self.lines.append((self.getpos()[0], "# " if tag in self.HEADINGS else ""))

    def handle_endtag(self, tag):
        self._hidden -= tag in self.HIDDEN
        if tag in self.BREAKS:
            self.lines.append((self.getpos()[0], ""))

    def handle_data(self, data):
        first = self.getpos()[0]
        for i, text in enumerate([] if self._hidden else data.split("\n")):
            if i == 0 and self.lines and self.lines[-1][0] == first and self.lines[-1][1]:
                # after a tag inside of a line, such as <b>
                self.lines[-1] = (first, self.lines[-1][1] + text)
            elif text.strip():
                self.lines.append((first + i, text.lstrip()))


def read_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """The lines of a document with their numbers, from 1."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".html", ".htm"):
        return _Html(text).lines
    return list(enumerate(text.splitlines(), 1))


def split(file: str, lines: list[tuple[int, str]], size: int) -> Iterator[Passage]:
    """Passages of about `size` bytes of UTF-8, which end at headings, paragraphs, or at least at sentences."""
    current: list[tuple[int, str]] = []
    length = lambda part: len("".join(text for _, text in part).encode())
    sentences = (
        (number, piece.strip())
        for number, line in lines
        for sentence in re.split(r"(?<=[.!?]) +|(?<=[。！？])", line)[: None if line else 1]
        for piece in textwrap.wrap(sentence, max(size // 2, 1)) or [""]
    )
    for number, text in sentences:
        is_heading = text.startswith("#")
        is_full = length([*current, (number, text)]) > size
        is_end = not text and length(current) > size // 2
        # a heading alone belongs to what follows
        has_text = any(not line.startswith("#") for _, line in current)
        if current and (is_full or (has_text and (is_end or is_heading))):
            yield Passage(file, tuple(current))
            current = []
        if text:
            current.append((number, text))
    if current:
        yield Passage(file, tuple(current))


def read_folder(folder: pathlib.Path, size: int) -> list[Passage]:
    """The passages of all documents below a folder; files that are not UTF-8 are named and left out."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found = []
    kinds = (".txt", ".md", ".html", ".htm")
    for path in sorted(p for p in folder.rglob("*") if p.suffix in kinds and p.is_file()):
        try:
            found += split(path.relative_to(folder).as_posix(), read_lines(path), size)
        except UnicodeDecodeError:
            print(f"{path}: not UTF-8, left out", file=sys.stderr)
    if not found:
        raise ValueError(f"{folder}: there is no text in .txt, .md or .html files")
    return found
