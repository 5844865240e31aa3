"""Exact match and F1 of answers, normalised as in the official script of SQuAD (Rajpurkar et al. 2016, 1606.05250)."""

from __future__ import annotations

import collections
import re
import string

SIGNATURE = (
    "SQuAD: lower case, no punctuation, no articles; Chinese, Japanese and Korean by characters"
)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])")
_PUNCTUATION = str.maketrans(
    "", "", string.punctuation + "，。：？！“”‘’；（）《》、·【】…—「」『』"
)


def tokens(answer: str) -> list[str]:
    """The words of an answer after normalisation; each character of Chinese, Japanese and Korean is one."""
    text = _ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION))
    return _CJK.sub(r" \1 ", text).split()


def exact_match(prediction: str, reference: str) -> bool:
    """Whether two answers have the same words in the same order."""
    return tokens(prediction) == tokens(reference)


def f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words; of an empty answer whether both are empty."""
    predicted, true = tokens(prediction), tokens(reference)
    if not predicted or not true:
        return float(predicted == true)
    common = sum((collections.Counter(predicted) & collections.Counter(true)).values())
    return 2 * common / (len(predicted) + len(true))
