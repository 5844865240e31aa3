"""The real texts that planted.py makes pages of, none of which shares a long run of words with another."""

from __future__ import annotations

import gzip
import html
import json
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

# a word, or a character of a script that is written without spaces: the words of MinHash's 5-grams and of spans
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_KEYS = ("text", "sentence", "content", "output", "body")
_SENTENCE_END = re.compile(r"[.!?][”\")]*(?=\s|$)|[。！？]")
_LINE_END = re.compile(r"(?<=[.!?。！？”\"])\s+|(?<=[。！？])|\n+")
# words of a page, and ends of sentences
LEAST, MOST, SENTENCES = 100, 450, 6
# characters of a line, from which it is divided between sentences
_LONG_LINE = 400
# two texts share at most a run of _RUN + _EVERY - 2 words
_RUN, _EVERY = 20, 5


def words(text: str) -> list[str]:
    """Its words in lower case, without punctuation."""
    return WORD.findall(text.lower())


def load(paths: Sequence[pathlib.Path]) -> list[str]:
    """Texts of LEAST to MOST words of all files and folders; long ones in parts, short ones of a file together."""
    out: list[str] = []
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.name.startswith("_"):
                out += _pages(_texts(file))
    out = [text for text in map(_lines, out) if len(_SENTENCE_END.findall(text)) >= SENTENCES]
    return [out[i] for i in _unique(out)]


def _texts(path: pathlib.Path) -> Iterator[str]:
    """The texts of a JSONL, JSON, TSV or text file; none of other files."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if b"\0" in data:
        return
    name = path.name.removesuffix(".gz")
    content = data.decode("utf-8", "replace")
    lines = [line for line in content.split("\n") if line.strip()]
    if name.endswith((".jsonl", ".json")):
        # a JSON file may have an object a line
        try:
            values = [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            values = [json.loads(content)]
        yield from map(_clean, _fields(values))
    elif name.endswith(".tsv"):
        yield from (_clean(line.split("\t")[-1]) for line in lines[1:])
    else:
        # a document a line if lines are long
        yield from map(_clean, lines if len(content) > 300 * len(lines) else content.split("\n\n"))


def _fields(value: object) -> Iterator[str]:
    """All texts in JSON, by the names that data sets give them."""
    if isinstance(value, list):
        for item in value:
            yield from _fields(item)
    elif isinstance(value, dict) and isinstance(value.get("context"), str):
        # questions about a text, and answers that are parts of it
        yield value["context"]
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str):
                if key in _KEYS:
                    yield item
            else:
                yield from _fields(item)


def _clean(text: str) -> str:
    text = html.unescape(re.sub(r"(<br\s*/?>\s*)+", "\n", text))
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _lines(text: str) -> str:
    """The text in lines of a few sentences, each with an end like a sentence: as pages are that have no fault."""
    out = []
    for line in text.split("\n"):
        at = 0
        for found in _LINE_END.finditer(line):
            if found.end() - at >= _LONG_LINE:
                out.append(line[at : found.start()])
                at = found.end()
        out.append(line[at:])
    stop = "。" if any("\u3400" <= c <= "\u9fff" for c in text[:100]) else "."
    lines = [re.sub(r"(\s*[.…]){2,}$", stop, line.strip()) for line in out if line.strip()]
    return "\n".join(line if _SENTENCE_END.search(line[-3:]) else line + stop for line in lines)


def _pages(texts: Iterator[str]) -> list[str]:
    """Pages of LEAST to MOST words, made of whole sentences."""
    out: list[str] = []
    parts: list[str] = []
    size = 0

    def finish() -> None:
        nonlocal parts, size
        if LEAST <= size <= MOST:
            out.append("".join(parts).strip())
        parts, size = [], 0

    for text in texts:
        num = len(WORD.findall(text))
        if LEAST <= num <= MOST:
            out.append(text)
            continue
        at = 0
        for end in [*(found.end() for found in _LINE_END.finditer(text)), len(text)]:
            sentence = text[at:end]
            at = end
            more = len(WORD.findall(sentence))
            if size + more > MOST:
                finish()
            parts.append(sentence)
            size += more
        parts.append("\n")
        # short texts of a file follow each other on a page
        if num > MOST or size > MOST // 2:
            finish()
    finish()
    return out


def _unique(texts: Sequence[str]) -> Iterator[int]:
    """The texts that share no run of 24 words with an earlier one, which could be a duplicate that was not planted."""
    numbers: dict[str, int] = {}
    seen: set[int] = set()
    for i, text in enumerate(texts):
        ids = np.array(
            [numbers.setdefault(word, zlib.crc32(word.encode())) for word in words(text)],
            dtype=np.uint64,
        )
        # every run of this text against every fifth run of the texts before it
        runs = run_hashes(ids, _RUN).tolist()
        if seen.isdisjoint(runs):
            seen.update(runs[::_EVERY])
            yield i


def run_hashes(ids: np.ndarray, run: int) -> np.ndarray:
    """Hashes of all runs of words, uint64 [N - run + 1]."""
    if len(ids) < run:
        return np.zeros(0, np.uint64)
    factor = np.uint64(6364136223846793005)
    out = np.zeros(len(ids) - run + 1, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(run):
            out = out * factor + ids[i : i + len(out)]
    return out
