"""C4's rules: lines that are not sentences are removed, pages of placeholders and code are dropped."""

from __future__ import annotations

import dataclasses
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
        conventions = self.conventions
        text = document.text
        if not text:
            return Drop("empty", 0, 1)
        # what is nowhere in the text need not be looked for in each line; cutting citations may make a phrase
        lower = text.lower()
        cut = self.citations and "[" in text
        lorem_ipsum = self.lorem_ipsum and (cut or "lorem ipsum" in lower)
        javascript = self.javascript and (cut or "javascript" in lower)
        curly_bracket = self.curly_bracket and "{" in text
        policies = conventions.policies if self.policies else ()
        if not cut:
            policies = tuple(phrase for phrase in policies if phrase in lower)
        phrases = lorem_ipsum or javascript or bool(policies)
        longest = self.max_word_length
        ellipses = tuple(e for e in conventions.ellipses if e.endswith(conventions.line_ends))

        kept: list[str] = []
        removed: list[tuple[str, str]] = []
        for line in text.splitlines():
            line = line.strip()
            whole = line
            if (
                longest is not None
                and len(line) > longest
                and max(map(len, line.split())) > longest
            ):
                removed.append(("max_word_length", whole))
                continue
            if cut:
                line = CITATION.sub("", line)
            if self.terminal_punctuation and (
                not line.endswith(conventions.line_ends) or line.endswith(ellipses)
            ):
                removed.append(("terminal_punctuation", whole))
                continue
            if self.min_words_per_line is not None and self._is_short(whole):
                removed.append(("min_words_per_line", whole))
                continue
            lower = line.lower() if phrases else ""
            if lorem_ipsum and "lorem ipsum" in lower:
                return Drop("lorem_ipsum", line[:100], "none")
            if javascript and "javascript" in lower:
                removed.append(("javascript", whole))
                continue
            if curly_bracket and "{" in line:
                return Drop("curly_bracket", line[:100], "none")
            if any(phrase in lower for phrase in policies):
                removed.append(("policies", whole))
                continue
            kept.append(line)

        record(document, [(rule, line) for rule, line in removed if line])
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

    def _is_short(self, line: str) -> bool:
        """Whether a line has fewer words than it must; the words are counted before citations are cut."""
        assert self.min_words_per_line is not None
        if self.conventions.spaced:
            return len(line.split(None, self.min_words_per_line)) < self.min_words_per_line
        return count(line, spaced=False) < self.min_words_per_line
