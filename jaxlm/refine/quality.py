"""Gopher's rules of quality: is this prose?"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from jaxlm.refine.analysis import LETTER, PUNCTUATION, Analysis, among, analyse
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.words import split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality(LanguageRule):
    """Drops documents that are too short, too long or do not look like prose; None switches a rule off.

    With `alphabetic="words"` the decisions are datatrove's (GopherQualityFilter) on the same words; the paper's rule
    is on words between spaces: with punctuation marks counted as words one in ten edited articles would fail it.

    Args:
        min_words, max_words: words that are not only punctuation.
        min_mean_word_length, max_mean_word_length: characters, of these words.
        max_hashes, max_ellipses: for each word, punctuation included.
        max_bullet_lines, max_ellipsis_lines: fraction of the lines that start with a bullet, end with an ellipsis.
        min_alphabetic_words: fraction of the words that have a letter.
        min_stop_words: different stop words in the text, as they are written in the list.
        stop_words: instead of the language's.
        alphabetic: which words `min_alphabetic_words` counts; "language": those between spaces, if there are spaces.
    """

    name: ClassVar[str] = "quality"
    source: ClassVar[str] = "Rae et al. 2021 (Gopher), arXiv:2112.11446, section A.1.1"

    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_length: float | None = 3
    max_mean_word_length: float | None = 10
    max_hashes: float | None = 0.1
    max_ellipses: float | None = 0.1
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alphabetic_words: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] = ()
    alphabetic: Literal["language", "whitespace", "words"] = "language"

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in self.stop_words:
            if split(word) != [word]:
                raise ValueError(
                    f"stop_words: {word!r} is not one word but {split(word)}; list single words"
                )

    def measures(self, text: str) -> Iterator[tuple[str, float]]:
        analysis = analyse(text)
        number = len(analysis.starts)
        if not number:
            yield "min_words", 0
            return
        real = analysis.in_words(analysis.flags & PUNCTUATION == 0)
        lengths = analysis.lengths[real]
        yield "min_words", len(lengths)
        yield "max_words", len(lengths)
        if len(lengths):
            mean = float(lengths.mean())
            yield "min_mean_word_length", mean
            yield "max_mean_word_length", mean

        yield "max_hashes", text.count("#") / number
        ellipses = self.conventions.ellipses
        yield "max_ellipses", sum(map(text.count, ellipses)) / number

        lines = text.splitlines()
        bullets = self.conventions.bullets
        yield (
            "max_bullet_lines",
            sum(line.lstrip().startswith(bullets) for line in lines) / len(lines),
        )
        yield (
            "max_ellipsis_lines",
            sum(line.rstrip().endswith(ellipses) for line in lines) / len(lines),
        )

        spaced = self.alphabetic == "whitespace" or (
            self.alphabetic == "language" and self.conventions.spaced
        )
        if spaced:
            yield "min_alphabetic_words", analysis.fraction_with_letters()
        else:
            alphabetic = analysis.in_words(analysis.flags & LETTER != 0)
            yield "min_alphabetic_words", np.count_nonzero(alphabetic) / number

        if len(stop_hashes := self._stop_hashes):
            # the last one counts the words that are none of them
            counts = np.bincount(among(analysis.hashes, stop_hashes) % (len(stop_hashes) + 1))
            yield "min_stop_words", int(np.count_nonzero(counts[: len(stop_hashes)]))

    @functools.cached_property
    def _stop_hashes(self) -> np.ndarray:
        stop_words = sorted(set(self.stop_words or self.conventions.stop_words))
        return np.sort(Analysis(" ".join(stop_words)).hashes)
