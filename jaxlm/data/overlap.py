"""Decontamination: which texts share a run of words with evaluation texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

# a word, or a character of a script that is written without spaces (kana, ideographs)
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
# words in a run (Brown et al. 2020, 2005.14165, appendix C)
RUN = 13


@dataclasses.dataclass(frozen=True)
class Overlap:
    """All runs of 13 words of a set of texts, ignoring case and punctuation."""

    # hashes
    runs: frozenset[int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Overlap:
        """The runs of these texts; a text of fewer words has none."""
        return cls(frozenset(run for text in texts for run in _runs(text)))

    def __contains__(self, text: str) -> bool:
        """Whether the text shares a run with them."""
        return any(run in self.runs for run in _runs(text))


def _runs(text: str) -> Iterator[int]:
    words = [hash(word) for word in _UNIT.findall(text.lower())]
    return (hash(tuple(words[i : i + RUN])) for i in range(len(words) - RUN + 1))
