"""C4's rules: lines that are not sentences are removed, pages of placeholders and code are dropped."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import ClassVar

from datatrove.data import Document

from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.lines import record
from jaxlm.refine.rule import Drop
from jaxlm.refine.words import count, sentences

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class C4(LanguageRule):
    """Removes lines by C4's rules and drops documents by what is left; None or False switches a rule off.

    The decisions and texts are datatrove's (C4QualityFilter) with the same sentences. FineWeb uses these rules
    without `terminal_punctuation`, which alone removes 30 % of the tokens. What is removed goes to
    `metadata["removed_lines"]`.

    Args:
        max_word_length: lines with a longer word between spaces are removed.
        citations: Wikipedia's marks such as [12] and [edit] are cut.
        terminal_punctuation: lines that do not end like a sentence, or with an ellipsis, are removed.
        min_words_per_line: shorter lines are removed; characters in languages without spaces.
        lorem_ipsum, curly_bracket: documents with a line that has it are dropped.
        javascript, policies: lines with the word, or with a phrase of cookie and privacy notices, are removed.
        min_sentences: of the lines that are left.
    """

    name: ClassVar[str] = "c4"
    source: ClassVar[str] = "Raffel et al. 2020 (C4), arXiv:1910.10683, section 2.2"

    max_word_length: int | None = 1000
    citations: bool = True
    terminal_punctuation: bool = True
    min_words_per_line: int | None = 3
    lorem_ipsum: bool = True
    javascript: bool = True
    curly_bracket: bool = True
    policies: bool = True
    min_sentences: int | None = 5

    def judge(self, document: Document) -> Drop | None:
        text = document.text
        if not text:
            return Drop("empty", 0, 1)
        cut = self.citations and "[" in text
        phrases = self._phrases_in(text, cut)
        kept: list[str] = []
        removed: list[tuple[str, str]] = []
        for whole in map(str.strip, text.splitlines()):
            line = CITATION.sub("", whole) if cut else whole
            rule = self._rule(line, whole, phrases)
            if rule in ("lorem_ipsum", "curly_bracket"):
                return Drop(rule, line[:100], "none")
            if not rule:
                kept.append(line)
            elif whole:
                removed.append((rule, whole))

        record(document, removed)
        if self.min_sentences is not None and len(kept) < self.min_sentences:
            # a line has at least one sentence
            number = sum(len(sentences(line)) for line in kept)
            if number < self.min_sentences:
                return Drop("min_sentences", number, self.min_sentences)
        result = "\n".join(kept).strip()
        if not result:
            return Drop("empty", 0, 1)
        document.text = result
        return None

    def _rule(self, line: str, whole: str, phrases: tuple[tuple[str, str], ...]) -> str:
        """The rule that a line breaks, or nothing; words are counted before citations are cut."""
        longest, least = self.max_word_length, self.min_words_per_line
        if (
            longest is not None
            and len(whole) > longest
            and max(map(len, whole.split()), default=0) > longest
        ):
            return "max_word_length"
        if self.terminal_punctuation and (
            not line.endswith(self.conventions.line_ends) or line.endswith(self._ellipses)
        ):
            return "terminal_punctuation"
        if least is not None and (
            len(whole.split(None, least)) < least
            if self.conventions.spaced
            else count(whole, spaced=False) < least
        ):
            return "min_words_per_line"
        if phrases:
            lower = line.lower()
            for rule, phrase in phrases:
                if phrase in lower:
                    return rule
        return ""

    def _phrases_in(self, text: str, cut: bool) -> tuple[tuple[str, str], ...]:
        """Rule and phrase, in order, for what may be in a line: what is not in the text is in none of its lines."""
        lower = text.lower()
        candidates = [
            ("lorem_ipsum", "lorem ipsum"),
            ("javascript", "javascript"),
            ("curly_bracket", "{"),
            *(("policies", phrase) for phrase in self.conventions.policies),
        ]
        # cutting citations may make a phrase
        return tuple(
            (rule, phrase)
            for rule, phrase in candidates
            if getattr(self, rule) and (cut or phrase in lower)
        )

    @functools.cached_property
    def _ellipses(self) -> tuple[str, ...]:
        ends = self.conventions.line_ends
        return tuple(e for e in self.conventions.ellipses if e.endswith(ends))
