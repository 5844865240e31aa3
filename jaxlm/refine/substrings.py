"""Exact-substring deduplication: spans of many words that occur elsewhere in the corpus are cut out.

A word lies in a repeated span of at least `length` words if and only if a window of `length` words that covers it
occurs twice. So the 64-bit hashes of all windows are compared (`jaxlm.refine.repeated`) instead of building a suffix
array, which would need the corpus in the memory of one machine. The result is that of EXACTSUBSTR (Lee et al. 2022,
2107.06499, section 4.1), applied as RefinedWeb does (2306.01116, appendix G.3.2): spans are cut, and documents of
which little is left are dropped. Two different windows have the same hash with a chance of about 2^-64 for each pair.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from jaxlm.refine import words
from jaxlm.refine.hashing import covered, span_hashes, window_hashes
from jaxlm.refine.repeated import HashWriter, Keep, Repeats
from jaxlm.refine.rule import Drop, Rule
from jaxlm.refine.timing import Timer

# characters of a removed span, and spans of a document, in the report
_SHOWN, _SPANS = 300, 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Substrings:
    """Settings of exact-substring deduplication.

    Args:
        length: words in a span.
        keep: "none": every occurrence is cut; "first": the first one of the corpus stays.
        min_characters: a document that has fewer left is dropped.
        memory: bytes that finding the repeats of one partition may take.
    """

    length: int = 50
    keep: Keep = "none"
    min_characters: int = 20
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length={self.length} must be at least 2")
        if self.memory < 1 << 20:
            raise ValueError(f"memory={self.memory} must be at least 1 MiB")


def _windows(document: Document, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the words, [N, 2], and hashes of the windows, [N - length + 1]."""
    spans = words.spans(document.text, document.metadata.get("language", "en"))
    return spans, window_hashes(span_hashes(document.text, spans), length)


class HashWindows(PipelineStep):
    """Writes the hashes of the windows of the documents that pass."""

    type = "refine"
    name = "hash windows"

    def __init__(self, folder: pathlib.Path, bits: int, length: int) -> None:
        super().__init__()
        self.folder, self.bits, self.length = folder, bits, length

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # type: ignore[no-untyped-def]
        """Passes every document on."""
        writer = HashWriter(self.folder, rank, self.bits)
        timer = Timer(self.folder, "hash", rank)
        for document in data:
            with timer:
                writer.add(_windows(document, self.length)[1])
            yield document
        with timer:
            writer.close()
        timer.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutSubstrings(Rule):
    """Cuts the repeated spans out."""

    name: ClassVar[str] = "substrings"
    source: ClassVar[str] = "RefinedWeb, appendix G.3.2; Lee et al. 2022, section 4.1"

    settings: Substrings
    folder: pathlib.Path
    bits: int
    repeats: Repeats | None = None

    def for_task(self, task: int) -> CutSubstrings:
        """With the marks of the task's windows."""
        return dataclasses.replace(self, repeats=Repeats(self.folder, task, self.bits))

    def check(self, document: Document) -> Drop | None:
        """Documents come in the order in which they were hashed."""
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Drop | None]:
        """See `check`."""
        assert self.repeats is not None
        found = [_windows(document, self.settings.length) for document in documents]
        # one look-up for the whole batch
        marks = self.repeats.take(np.concatenate([hashes for _, hashes in found]))
        ends = np.cumsum([len(hashes) for _, hashes in found])
        result = []
        for document, (spans, _), marked in zip(
            documents, found, np.split(marks, ends[:-1]), strict=True
        ):
            if marked.any():
                _cut(document, spans, marked, self.settings.length)
            left = len(document.text.strip())
            few = marked.any() and left < self.settings.min_characters
            result.append(
                Drop("too_little_left", left, self.settings.min_characters) if few else None
            )
        return result


def _cut(document: Document, spans: np.ndarray, marked: np.ndarray, length: int) -> None:
    inside = covered(marked, length)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    text, kept, removed, end = document.text, [], [], 0
    for first, after in edges.reshape(-1, 2):
        start, stop = int(spans[first, 0]), int(spans[after - 1, 1])
        kept.append(text[end:start])
        removed.append(["repeated", text[start:stop][:_SHOWN]])
        end = stop
    kept.append(text[end:])
    document.text = "".join(kept).strip()
    document.metadata["removed_lines"] = removed[:_SPANS]
