"""Line-wise corrections: lines of menus, counters and buttons are cut out of a document."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from datatrove.data import Document

from jaxlm.refine.analysis import DIGIT, UPPERCASE, WHITESPACE, Analysis, analyse
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.languages import Conventions
from jaxlm.refine.rule import Drop
from jaxlm.refine.words import count

# of the report
REMOVED_LINES = 50
REMOVED_CHARACTERS = 300
# a counter or button is not longer, so that no pattern meets a long line
PATTERN_CHARACTERS = 120

MANY_NEWLINES = re.compile(r"\n{3,}")
NUMBER = r"\d[\d.,]*\+?\s?(?:[kmbw万萬千亿億]\+?)?"
MEASURE = "[个個条條次人则則篇位名]{0,2}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(LanguageRule):
    """Removes lines that are not text, and drops documents that lose too much; None or False switches a rule off.

    The lists of counters and phrases are the language's (`languages.CONVENTIONS`); the paper names one or two
    examples of each. In languages without spaces a word is a character here. What is removed goes to
    `metadata["removed_lines"]`, of documents that are dropped too, whose text stays as it was.

    Args:
        max_uppercase: fraction of the characters of a line that are upper-case letters.
        numbers: removes lines with nothing but digits, their points and commas, and spaces.
        counters: removes lines such as "3 likes".
        min_words: shorter lines are removed.
        phrases: cuts phrases such as "items in cart", at the end "Read more...", at the start "Sign-in".
        short_line: phrases and counters are looked for in lines of at most so many words.
        max_removed_words: fraction of the document's words, beyond which it is dropped.
    """

    name: ClassVar[str] = "lines"
    source: ClassVar[str] = "Penedo et al. 2023 (RefinedWeb), arXiv:2306.01116, appendix G.2"

    max_uppercase: float | None = 0.5
    numbers: bool = True
    counters: bool = True
    min_words: int | None = 2
    phrases: bool = True
    short_line: int = 10
    max_removed_words: float | None = 0.05

    def judge(self, document: Document) -> Drop | None:
        text = document.text
        spaced = self.conventions.spaced
        kept, removed = [], []
        lines = text.split("\n")
        for line, by_characters in zip(lines, self._by_characters(analyse(text)).tolist()):
            if not line or line.isspace():
                kept.append(line)
                continue
            rule = ("", "max_uppercase", "numbers")[by_characters]
            words = len(line.split(None, self.short_line)) if spaced else count(line, spaced)
            short = words <= self.short_line and len(line) <= PATTERN_CHARACTERS
            if (
                not rule
                and short
                and self.counters
                and self._counter.fullmatch(line.lower().strip())
            ):
                rule = "counters"
            if not rule and self.min_words is not None and words < self.min_words:
                rule = "min_words"
            if not rule and short and self.phrases:
                cut = self._phrases.sub("", line)
                if cut != line:
                    removed.append(("phrases", line))
                    if cut.strip():
                        kept.append(cut)
                    continue
            if rule:
                removed.append((rule, line))
            else:
                kept.append(line)
        if not removed:
            return None
        record(document, removed)
        result = MANY_NEWLINES.sub("\n\n", "\n".join(kept)).strip("\n")
        before = count(text, spaced)
        fraction = 1 - count(result, spaced) / before
        if self.max_removed_words is not None and fraction > self.max_removed_words:
            return Drop("max_removed_words", fraction, self.max_removed_words)
        if not result:
            return Drop("empty", 0, 1)
        document.text = result
        return None

    def _by_characters(self, analysis: Analysis) -> np.ndarray:
        """For each line [L]: 1 if it has too many upper-case letters, 2 if it has digits only, otherwise 0."""
        newlines = np.flatnonzero(analysis.codes == 10)
        starts = np.concatenate([[0], newlines + 1])
        lengths = np.diff(starts, append=len(analysis.codes) + 1) - 1
        # one element more, for a last line that is empty
        flags = np.append(analysis.flags, np.uint8(WHITESPACE))

        def per_line(flag: int) -> np.ndarray:
            return sums(flags & flag != 0)

        def sums(marks: np.ndarray) -> np.ndarray:
            return np.add.reduceat(marks, starts, dtype=np.int64)

        # the end of a line is white space
        visible = lengths + 1 - per_line(WHITESPACE)
        result = np.zeros(len(starts), np.int8)
        if self.numbers:
            digits = per_line(DIGIT)
            # 2,418 and 3.5
            marks = sums(np.append((analysis.codes == 44) | (analysis.codes == 46), False))
            result[(digits + marks == visible) & (digits > 0)] = 2
        if self.max_uppercase is not None:
            result[per_line(UPPERCASE) > self.max_uppercase * lengths] = 1
        return result

    @functools.cached_property
    def _counter(self) -> re.Pattern[str]:
        return counter_pattern(self.conventions)

    @functools.cached_property
    def _phrases(self) -> re.Pattern[str]:
        return phrase_pattern(self.conventions)


def counter_pattern(words: Conventions) -> re.Pattern[str]:
    """A line of counters only, in lower case, such as "3 likes", "1.2k views · 4 comments" or "3条评论"."""
    nouns = "|".join(words.counted)
    if words.counted_first:
        one = rf"(?:{NUMBER}\s?{MEASURE}\s?(?:{nouns})|(?:{nouns})\W{{0,3}}{NUMBER}{MEASURE})"
    else:
        one = rf"{NUMBER}\s+(?:{nouns})\b"
    return re.compile(rf"(?:\W*{one})+\W*" if nouns else r"(?!)")


def phrase_pattern(words: Conventions) -> re.Pattern[str]:
    """Phrases with the spaces around them, where they are to be cut."""

    def one_of(phrases: Iterable[str]) -> str:
        return "|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True)) or "(?!)"

    return re.compile(
        rf"^\s*(?:{one_of(words.at_start)})(?!\w)\s?"
        rf"|\s?(?:{one_of(words.at_end)})[.…。>»]*\s*$"
        rf"|\s?(?:\d+\s?)?(?:{one_of(words.anywhere)})",
        re.IGNORECASE,
    )


def record(document: Document, removed: list[tuple[str, str]]) -> None:
    """Adds removed lines to the document's metadata, for the report: [rule, line], the first of them."""
    listed = document.metadata.get("removed_lines")
    if not removed and listed is None:
        return
    if not isinstance(listed, list):
        # what another program wrote
        listed = document.metadata["removed_lines"] = []
    for rule, line in removed[: REMOVED_LINES - len(listed)]:
        listed.append([rule, line[:REMOVED_CHARACTERS]])
