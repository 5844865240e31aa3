"""Decontamination: which texts share a run of words with evaluation texts."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Iterable

# a word, or a character of a script that is written without spaces (kana, ideographs)
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
# words in a run (Brown et al. 2020, 2005.14165, appendix C)
RUN = 13


@dataclasses.dataclass(frozen=True)
class Overlap:
    """All runs of `length` words of a set of texts, ignoring case and punctuation."""

    # hashes, which are the same in every process
    runs: frozenset[int]
    # words in a run
    length: int = RUN

    @classmethod
    def of(cls, texts: Iterable[str], length: int = RUN) -> Overlap:
        """The runs of these texts; a text of fewer words has none."""
        return cls(frozenset(run for text in texts for run in _runs(_words(text), length)), length)

    def __contains__(self, text: str) -> bool:
        """Whether the text shares a run with them."""
        return not self.runs.isdisjoint(_runs(_words(text), self.length))

    def shared(self, text: str) -> str | None:
        """The first run of words that the text shares with them, in lower case; None: there is none."""
        words = _words(text)
        for start, run in enumerate(_runs(words, self.length)):
            if run in self.runs:
                return " ".join(words[start : start + self.length])
        return None


def _words(text: str) -> list[str]:
    return _UNIT.findall(text.lower())


def _runs(words: list[str], length: int) -> list[int]:
    # not hash(word), which differs from process to process
    hashes = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words]
    return [hash(tuple(hashes[i : i + length])) for i in range(len(hashes) - length + 1)]
