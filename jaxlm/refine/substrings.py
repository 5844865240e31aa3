"""Exact-substring deduplication: spans of many words that occur elsewhere in the corpus are cut out.

A word lies in a repeated span of at least `length` words if and only if a window of `length` words that covers it
occurs twice. So the 64-bit hashes of all windows are compared (`jaxlm.refine.repeated`) instead of building a suffix
array, which would need the corpus in the memory of one machine. The result is that of EXACTSUBSTR (Lee et al. 2022,
2107.06499, section 4.1), applied as RefinedWeb does (2306.01116, appendix G.3.2): spans are cut, and documents of
which little is left are dropped. Two different windows have the same hash with a chance of about 2^-64 for each pair.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from datatrove.data import Document

from jaxlm.refine.analysis import analyse
from jaxlm.refine.hashing import covered, window_hashes
from jaxlm.refine.repeated import HashDocuments, Keep, Repeats
from jaxlm.refine.rule import Drop, Rule

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

    name: ClassVar[str] = "substrings"

    length: int = 50
    keep: Keep = "none"
    min_characters: int = 20
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length={self.length} must be at least 2")
        if self.memory < 1 << 20:
            raise ValueError(f"memory={self.memory} must be at least 1 MiB")

    def hash(self, folder: pathlib.Path, bits: int) -> HashDocuments:
        """The step that writes the hashes of the windows of the documents that pass."""
        return HashDocuments(folder, bits, functools.partial(_windows, length=self.length))


def _windows(document: Document, length: int) -> np.ndarray:
    """Hashes of the windows, [N - length + 1] of N words."""
    return window_hashes(analyse(document.text).hashes, length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutSubstrings(Rule):
    """Cuts the repeated spans out."""

    name: ClassVar[str] = Substrings.name
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
        marks = self.repeats.take(np.concatenate(found))
        ends = np.cumsum([len(hashes) for hashes in found])
        result = []
        for document, marked in zip(documents, np.split(marks, ends[:-1]), strict=True):
            if marked.any():
                _cut(document, marked, self.settings.length)
            left = len(document.text.strip())
            few = marked.any() and left < self.settings.min_characters
            result.append(
                Drop("too_little_left", left, self.settings.min_characters) if few else None
            )
        return result


def _cut(document: Document, marked: np.ndarray, length: int) -> None:
    words = analyse(document.text)
    inside = covered(marked, length)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    text, kept, removed, end = document.text, [], [], 0
    for first, after in edges.reshape(-1, 2):
        start, stop = int(words.starts[first]), int(words.ends[after - 1])
        kept.append(text[end:start])
        removed.append(["repeated", text[start:stop][:_SHOWN]])
        end = stop
    kept.append(text[end:])
    document.text = "".join(kept).strip()
    document.metadata["removed_lines"] = removed[:_SPANS]
