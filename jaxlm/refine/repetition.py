"""Gopher's rules against repetition within a document."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from jaxlm.refine.analysis import Analysis, among, analyse
from jaxlm.refine.language_rule import LanguageRule

PARAGRAPH_END = re.compile(r"\n{2,}")
LINE_END = re.compile(r"\n+")
PART = 1 << 16
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repetition(LanguageRule):
    """Drops documents that repeat themselves; None switches a rule off.

    Every threshold is a fraction: of the lines or paragraphs, or of the characters of the text. The decisions are
    datatrove's (GopherRepetitionFilter) on the same words; n-grams are compared by 64-bit hashes.
    """

    name: ClassVar[str] = "repetition"
    source: ClassVar[str] = "Rae et al. 2021 (Gopher), arXiv:2112.11446, table A1"

    max_duplicate_paragraphs: float | None = 0.30
    max_duplicate_paragraph_characters: float | None = 0.20
    max_duplicate_lines: float | None = 0.30
    max_duplicate_line_characters: float | None = 0.20
    max_top_2_gram: float | None = 0.20
    max_top_3_gram: float | None = 0.18
    max_top_4_gram: float | None = 0.16
    max_duplicate_5_grams: float | None = 0.15
    max_duplicate_6_grams: float | None = 0.14
    max_duplicate_7_grams: float | None = 0.13
    max_duplicate_8_grams: float | None = 0.12
    max_duplicate_9_grams: float | None = 0.11
    max_duplicate_10_grams: float | None = 0.10

    def measures(self, text: str) -> Iterator[tuple[str, float]]:
        length = len(text)
        paragraphs = PARAGRAPH_END.split(text.strip())
        elements, characters = duplicates(paragraphs)
        yield "max_duplicate_paragraphs", elements / len(paragraphs)
        yield "max_duplicate_paragraph_characters", characters / length
        lines = LINE_END.split(text)
        elements, characters = duplicates(lines)
        yield "max_duplicate_lines", elements / len(lines)
        yield "max_duplicate_line_characters", characters / length

        analysis = analyse(text)
        # here words, not characters, have to be equal
        words = hashes = analysis.hashes
        for n in (2, 3, 4):
            if len(words) < n:
                break
            hashes = hashes[:-1] * MULTIPLIER + words[n - 1 :]
            yield f"max_top_{n}_gram", top_n_gram_characters(analysis, hashes, n) / length
        for n in range(5, 11):
            field = f"max_duplicate_{n}_grams"
            if getattr(self, field) is not None:
                yield field, duplicate_n_gram_characters(analysis, n) / length


def duplicates(elements: Iterable[str]) -> tuple[int, int]:
    """Number and characters of the elements that stood before."""
    seen = set()
    number = characters = 0
    for element in elements:
        if element in seen:
            number += 1
            characters += len(element)
        else:
            seen.add(element)
    return number, characters


def top_n_gram_characters(analysis: Analysis, hashes: np.ndarray, n: int) -> int:
    """Characters, with the spaces between words, of all occurrences of the most frequent n-gram.

    Of several that are equally frequent the first counts.

    Args:
        hashes: of the n-grams [N - n + 1], at least one.
    """
    ordered = np.sort(hashes)
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    count, first = 1, 0
    if len(ends) < len(hashes) - 1:
        ends = np.concatenate([[-1], ends, [len(hashes) - 1]])
        counts = ends[1:] - ends[:-1]
        count = int(counts.max())
        frequent = ordered[ends[1:][counts == count]]
        first = int((among(hashes, frequent) >= 0).argmax())
    offsets = analysis.offsets
    return (int(offsets[first + n] - offsets[first]) + n - 1) * count


def duplicate_n_gram_characters(analysis: Analysis, n: int) -> int:
    """Characters, without spaces, of the n-grams that stood before, each word counted once.

    From left to right: an n-gram that stood before is counted and stepped over, so that those that overlap it are
    neither counted nor remembered. N-grams are equal if their characters are, wherever the words end.
    """
    prefix, factor = analysis.prefixes
    hashes = prefix[n:] - prefix[:-n]
    hashes *= factor[:-n]
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return 0
    # the others can neither be counted nor match
    index = among(hashes, repeated)
    positions = np.flatnonzero(index >= 0)
    seen = bytearray(len(repeated))
    characters = following = 0
    # a list of Python numbers takes ten times the memory of an array: a part at a time
    for part in np.split(positions, range(PART, len(positions), PART)):
        lengths = analysis.offsets[part + n] - analysis.offsets[part]
        for position, value, length in zip(part.tolist(), index[part].tolist(), lengths.tolist()):
            if position < following:
                continue
            if seen[value]:
                characters += length
                following = position + n
            else:
                seen[value] = 1
    return characters
