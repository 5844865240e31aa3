"""The main text of web pages, extracted in a child process that a page may bring down."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import ClassVar

from datatrove.data import Document

from jaxlm.refine import extraction_child
from jaxlm.refine.extraction_child import EXTRACTORS
from jaxlm.refine.rule import Drop, Rule

# characters that are sent to the child at once
_SENT = 4_000_000
# the child may sleep or wait: it is ended after so many times its processor time
_WALL = 20
# seconds in which a child has to start, on a machine that is busy
_START = 300
# pages after which a child is replaced: libxml2 keeps every name that it has read
_PAGES = 5_000
# a URL and the space before it; an ideograph or a quotation mark ends it
_URL = re.compile(
    r" ?(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)[^\s<>\"'`{}|\\^\u2018-\u201f\u3000-\u9fff\uff00-\uffef]+"
)
_URL_END = ".,;:!?)]*_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction(Rule):
    """Replaces pages (documents with metadata "html") by their main text.

    No page stops the worker; dropped are pages that take too long (`time_limit`), end the child process
    (`extractor_died`), make the extractor raise (`extractor_error`), have no text (`empty`), or are too
    large (`too_large`).
    """

    name: ClassVar[str] = "extraction"
    source: ClassVar[str] = "RefinedWeb (2306.01116), section 3.1: trafilatura (Barbaresi 2021)"

    # "trafilatura", "resiliparse", or "module:function" that takes a page and returns its text, or None
    extractor: str = "trafilatura"
    # processor seconds of a page, so that a busy machine drops no more pages than another
    time_limit: float = 10.0
    # UTF-8 bytes of a page; Common Crawl cuts pages after 5 MiB
    max_bytes: int = 10_000_000
    # bytes of the child's address space; None: no limit
    max_memory: int | None = 4 << 30
    # newlines in a row
    max_newlines: int = 2
    # removes http://... and www. ... from the text
    remove_urls: bool = True

    def __post_init__(self):
        if self.extractor not in EXTRACTORS and not re.fullmatch(r"[\w.]+:\w+", self.extractor):
            raise ValueError(
                f"extractor={self.extractor!r} is not one of {', '.join(EXTRACTORS)}, nor module:function"
            )
        for field in ("time_limit", "max_bytes", "max_newlines"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field}={getattr(self, field)} must be positive")

    def check(self, document: Document) -> Drop | None:
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Drop | None]:
        pages = [i for i, document in enumerate(documents) if document.metadata.get("html")]
        drops: list[Drop | None] = [None] * len(documents)
        fit = []
        for i in pages:
            if (size := _size(documents[i].text, self.max_bytes)) > self.max_bytes:
                drops[i] = Drop("too_large", size, self.max_bytes)
            else:
                fit.append(i)
        answers = self._child.extract([documents[i].text for i in fit])
        for i, answer in zip(fit, answers, strict=True):
            if isinstance(answer, Drop):
                drops[i] = answer
                continue
            text = self.clean(answer)
            if not text:
                drops[i] = Drop("empty", 0, 1)
                continue
            documents[i].text = text
            del documents[i].metadata["html"]
        return drops

    def clean(self, text: str) -> str:
        """The text without URLs and without too many newlines."""
        if self.remove_urls and ("://" in text or "www." in text):
            text = _URL.sub(_without, text)
        most = self.max_newlines
        return re.sub(rf"\n(?:[^\S\n]*\n){{{most},}}", "\n" * most, text).strip()

    def close(self) -> None:
        self._child.close()

    @functools.cached_property
    def _child(self) -> _Child:
        return _Child(self.extractor, self.time_limit, self.max_memory)


def _size(page: str, most: int) -> int:
    """UTF-8 bytes of a page, which are counted only where they decide."""
    if len(page) > most or 3 * len(page) <= most:
        return len(page)
    return len(page.encode("utf-8", "surrogatepass"))


def _without(match: re.Match) -> str:
    """What stays of a URL: the punctuation after it."""
    url = match[0]
    return url[len(url.rstrip(_URL_END)) :]


class _Child:
    """A process that extracts text, started when it is needed, and again when it has ended."""

    def __init__(self, extractor: str, seconds: float, memory: int | None):
        self.settings = (extractor, seconds, memory)
        self.process: subprocess.Popen | None = None
        self.connection: Connection | None = None
        self.owner = os.getpid()
        self.pages = 0

    def extract(self, pages: Sequence[str]) -> list[str | Drop]:
        """The text of each page, or why there is none."""
        answers: list[str | Drop] = []
        while len(answers) < len(pages):
            start = end = len(answers)
            size = 0
            while end < len(pages) and (end == start or size + len(pages[end]) <= _SENT):
                size += len(pages[end])
                end += 1
            answers.extend(self._answers(pages[start:end]))
        return answers

    def _answers(self, pages: Sequence[str]) -> Iterator[str | Drop]:
        """Answers to the first pages; the last one may be the reason for which the child ended."""
        if self.owner != os.getpid():
            # after a fork the pipe is the other process's
            self.process = self.connection = None
        has_ended = self.process is not None and self.process.poll() is not None
        if has_ended or self.pages >= _PAGES:
            # one that was ended between batches is no page's fault
            self.close()
        if self.connection is None:
            self._start()
        assert self.connection is not None
        limit = self.settings[1]
        try:
            self.connection.send(pages)
            for _ in pages:
                if not self.connection.poll(_WALL * limit):
                    self.close()
                    yield Drop("time_limit", f"no answer in {_WALL * limit:g}", limit)
                    return
                kind, answer = self.connection.recv()
                self.pages += 1
                yield Drop("extractor_error", answer, "none") if kind == "error" else answer or ""
        except (EOFError, OSError):
            code = self.close()
            if code == -signal.SIGPROF:
                yield Drop("time_limit", f"over {limit:g}", limit)
            else:
                yield Drop("extractor_died", _ending(code), "none")

    def _start(self) -> None:
        extractor, seconds, memory = self.settings
        self.connection, theirs = Pipe()
        # a new interpreter and no fork: workers may have threads, and Ray's do
        command = [sys.executable, "-P", extraction_child.__file__, str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
        theirs.close()
        self.owner, self.pages = os.getpid(), 0
        try:
            self.connection.send((list(sys.path), extractor, seconds, memory))
            if not self.connection.poll(_START):
                raise EOFError
            kind, answer = self.connection.recv()
        except (EOFError, OSError):
            code = self.close()
            raise RuntimeError(
                f"the process of the extractor {extractor!r} did not start ({_ending(code)})"
            ) from None
        if kind == "error":
            self.close()
            needed = f"; pip install {extractor}" if extractor in EXTRACTORS else ""
            raise ValueError(f"extractor {extractor!r} cannot be loaded: {answer}{needed}")

    def close(self) -> int | None:
        """Ends the process; returns its exit code if it had ended by itself."""
        if self.connection is not None:
            self.connection.close()
        code = None
        if self.process is not None:
            try:
                # it ends when it reads that the connection is closed, unless it is extracting
                code = self.process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = self.connection = None
        return code

    def __del__(self):
        if self.owner == os.getpid():
            self.close()


def _ending(code: int | None) -> str:
    if code is None:
        return "ended by us"
    if code < 0:
        names = {each.value: each.name for each in signal.Signals}
        return names.get(-code, f"signal {-code}")
    return f"exit code {code}"
