"""Gopher's rules against repetition within a document."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.words import Analysis, analyse

PARAGRAPH_END = re.compile(r"\n{2,}")
LINE_END = re.compile(r"\n+")


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
        for n in (2, 3, 4):
            field = f"max_top_{n}_gram"
            if getattr(self, field) is not None and len(analysis.spans) >= n:
                yield field, top_n_gram_characters(analysis, n) / length
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


def top_n_gram_characters(analysis: Analysis, n: int) -> int:
    """Characters, with the spaces between words, of all occurrences of the most frequent n-gram.

    Of several that are equally frequent the first counts. There must be at least n words.
    """
    # words, not characters, have to be equal: their lengths are hashed along with them
    words = analysis.hashes
    hashes = words[: len(words) - n + 1].copy()
    for i in range(1, n):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += words[i : len(words) - n + 1 + i]
    ordered = np.sort(hashes)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(starts, append=len(ordered))
    count = int(counts.max())
    first = 0
    if count > 1:
        frequent = ordered[starts[counts == count]]
        first = int(np.isin(hashes, frequent).argmax())
    offsets = analysis.offsets
    return (int(offsets[first + n] - offsets[first]) + n - 1) * count


def duplicate_n_gram_characters(analysis: Analysis, n: int) -> int:
    """Characters, without spaces, of the n-grams that stood before, each word counted once.

    From left to right: an n-gram that stood before is counted and stepped over, so that those that overlap it are
    neither counted nor remembered. N-grams are equal if their characters are, wherever the words end.
    """
    prefix, factor = analysis.prefixes
    hashes = (prefix[n:] - prefix[:-n]) * factor[:-n]
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return 0
    # the others can neither be counted nor match
    positions = np.flatnonzero(np.isin(hashes, repeated))
    offsets = analysis.offsets
    lengths = offsets[positions + n] - offsets[positions]
    seen: set[int] = set()
    characters = following = 0
    for position, value, length in zip(
        positions.tolist(), hashes[positions].tolist(), lengths.tolist()
    ):
        if position < following:
            continue
        if value in seen:
            characters += length
            following = position + n
        else:
            seen.add(value)
    return characters
