"""FineWeb's own rules, chosen by ablations on what lower-quality pages have more of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from datatrove.utils.text import TERMINAL_PUNCTUATION

from jaxlm.refine.analysis import analyse
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.repetition import duplicates


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineWeb(LanguageRule):
    """Drops lists and pages whose lines do not end like sentences; None switches a rule off.

    The thresholds are the paper's. datatrove's FineWebQualityFilter, which decides the same at the same thresholds,
    has others as its defaults: 0.01 instead of 0.1 for repeated lines, and the list rule with 0.3.

    Args:
        min_punctuated_lines: fraction of the lines that end with terminal punctuation, of any script.
        max_short_lines: fraction of the lines of at most `short_line` characters.
        max_duplicate_line_characters: fraction of the characters that is in lines that stood before.
        max_newlines_per_word: the list rule.
        line_ends: characters that end a line, instead of all terminal punctuation of Unicode.
    """

    name: ClassVar[str] = "fineweb"
    source: ClassVar[str] = "Penedo et al. 2024 (FineWeb), arXiv:2406.17557, section 3.6"

    min_punctuated_lines: float | None = 0.12
    max_short_lines: float | None = 0.67
    max_duplicate_line_characters: float | None = 0.1
    max_newlines_per_word: float | None = None
    short_line: int = 30
    line_ends: str = ""

    def measures(self, text: str) -> Iterator[tuple[str, float]]:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            yield "min_punctuated_lines", 0.0
            return
        ends = self.line_ends or TERMINAL_PUNCTUATION
        yield "min_punctuated_lines", sum(line[-1] in ends for line in lines) / len(lines)
        short = self.short_line
        yield "max_short_lines", sum(len(line) <= short for line in lines) / len(lines)
        characters = len(text) - text.count("\n")
        yield "max_duplicate_line_characters", duplicates(lines)[1] / characters
        if self.max_newlines_per_word is not None and (words := len(analyse(text).starts)):
            yield "max_newlines_per_word", text.count("\n") / words
