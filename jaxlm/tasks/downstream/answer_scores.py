"""Exact match and F1 of answers: English as SQuAD scores it, Chinese as CMRC 2018 does, both in percent.

English: Rajpurkar et al. 2016 (1606.05250, section 5) and 2018 (1806.03822), as evaluate-v2.0.py computes them: answers
are compared without case, punctuation, articles and superfluous spaces; F1 is that of the two bags of words. Chinese:
Cui et al. 2019 (1810.07366, section 4.1), as cmrc2018_evaluate.py computes them: F1 is that of the longest common run
of Chinese characters and of words in other scripts, except that a text in another script is taken as one sentence. Of
several true answers the best one counts; a question without any has the answer "".
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# the signs that CMRC's script removes
_SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile("[\u4e00-\u9fa5]")
# words of lower-cased text as in the Penn Treebank (MacIntyre's tokenizer.sed, which CMRC's script uses through NLTK)
_TREEBANK = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«‘„])", r" \1 "),
        (r'^"', " `` "),
        (r"([ (\[{<])(\"|'{2})", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        (r"([^.])(\.)([\])}>\"' »]*)\s*$", r"\1 \2 \3 "),
        (r"(,)([^\d])", r" \1 \2"),
        (r"(,)$", r" \1 "),
        (r"\.{2,}|[;@#$%&\u2012-\u2015]", r" \g<0> "),
        (r"[?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[\]\[(){}<>]", r" \g<0> "),
        (r"^|$", " "),
        (r"»|''", r" \g<0> "),
        (r'"', " '' "),
        (r"\s+", " "),
        (r"([^' ])('[smd]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (r"\b(can)(not)\b", r" \1 \2 "),
        (r"\b(d)('ye)\b", r" \1 \2 "),
        (r"\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"\b(gon)(na)\b", r" \1 \2 "),
        (r"\b(got)(ta)\b", r" \1 \2 "),
        (r"\b(more)('n)\b", r" \1 \2 "),
        (r"\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r" ('t)(is)\b", r" \1 \2 "),
        (r" ('t)(was)\b", r" \1 \2 "),
    )
]


def normalized(text: str) -> str:
    """An English answer as it is compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_english(true: str, predicted: str) -> float:
    """1 if the two answers are the same once they are normalized, else 0."""
    return float(normalized(true) == normalized(predicted))


def f1_english(true: str, predicted: str) -> float:
    """F1 of the words of a predicted answer, from 0 to 1."""
    a, b = normalized(true).split(), normalized(predicted).split()
    if not a or not b:
        return float(a == b)
    common = (collections.Counter(a) & collections.Counter(b)).total()
    return 2 * common / (len(a) + len(b))


def pieces(text: str) -> list[str]:
    """A Chinese answer as its characters and, of other scripts, words; without signs."""
    out, other = [], ""
    for c in text.lower().strip():
        if c in _SIGNS:
            continue
        if _HAN.match(c):
            out += [*_words(other), c]
            other = ""
        else:
            other += c
    return out + _words(other)


def _words(text: str) -> list[str]:
    for pattern, replacement in _TREEBANK:
        text = pattern.sub(replacement, text)
    return text.split()


def exact_chinese(true: str, predicted: str) -> float:
    """1 if the two answers are the same without case and signs, else 0."""
    a, b = ("".join(c for c in x.lower().strip() if c not in _SIGNS) for x in (true, predicted))
    return float(a == b)


def f1_chinese(true: str, predicted: str) -> float:
    """F1 of the longest common run of pieces, from 0 to 1."""
    a, b = pieces(true), pieces(predicted)
    if not a or not b:
        return float(a == b)
    longest = 0
    before = [0] * (len(b) + 1)
    for x in a:
        runs = [0, *(n + 1 if x == y else 0 for n, y in zip(before, b))]
        longest, before = max(longest, *runs), runs
    return 2 * longest / (len(a) + len(b))


Measure = Callable[[str, str], float]
# language -> exact match and F1 of a true and a predicted answer
MEASURES: dict[str, tuple[Measure, Measure]] = {
    "english": (exact_english, f1_english),
    "chinese": (exact_chinese, f1_chinese),
}


def language_of(texts: Sequence[str]) -> str:
    """ "chinese" if there are more Chinese characters than other letters, else "english"."""
    letters = [c for text in texts for c in text if c.isalpha()]
    han = sum(_HAN.match(c) is not None for c in letters)
    return "chinese" if 2 * han > len(letters) else "english"


def best(measure: Measure, true: Sequence[str], predicted: str) -> float:
    """The measure against the most similar of the true answers."""
    # answers of which nothing is left, such as "the", are none to the official script
    some = [x for x in true if measure is exact_chinese or measure is f1_chinese or normalized(x)]
    return max(measure(x, predicted) for x in some or [""])


def each(
    true: Sequence[Sequence[str]], predicted: Sequence[str], language: str
) -> dict[str, np.ndarray]:
    """exact_match and f1 of each answer, in percent [n]; arguments as of `score`."""
    return {name: 100 * np.array(x) for name, x in _values(true, predicted, language).items()}


def _values(
    true: Sequence[Sequence[str]], predicted: Sequence[str], language: str
) -> dict[str, list[float]]:
    """Both measures of each answer, from 0 to 1."""
    pairs = list(zip(true, predicted, strict=True))
    names = ("exact_match", "f1")
    return {n: [best(m, a, b) for a, b in pairs] for n, m in zip(names, MEASURES[language])}


def score(
    true: Sequence[Sequence[str]],
    predicted: Sequence[str],
    language: str,
    *,
    no_answer: Sequence[float] | None = None,
    candidates: Sequence[str] | None = None,
) -> dict[str, float]:
    """exact_match and f1 of all answers and, if some questions have none, of both kinds of questions, in percent.

    Args:
        true: the true answers to each question.
        predicted: the predicted ones; "" for none.
        language: a key of `MEASURES`.
        no_answer: larger where a question is more likely to have no answer; adds the thresholds with the best results.
        candidates: with `no_answer`: the answers that are given below the threshold.
    """
    result: dict[str, float] = {}
    has = [bool(answers) for answers in true]
    for name, values in _values(true, predicted, language).items():
        result[name] = 100 * sum(values) / len(values)
        if not all(has):
            for kind, wanted in (("has_answer", True), ("no_answer", False)):
                some = [x for x, h in zip(values, has) if h is wanted]
                if some:
                    result[f"{kind}_{name}"] = 100 * sum(some) / len(some)
    if no_answer is not None and candidates is not None and not all(has):
        for name, values in _values(true, candidates, language).items():
            both = best_threshold(values, has, candidates, no_answer)
            result[f"best_{name}"], result[f"best_{name}_threshold"] = both
    return result


def best_threshold(
    values: Sequence[float], has: Sequence[bool], candidates: Sequence[str], scores: Sequence[float]
) -> tuple[float, float]:
    """The best mean of the values, in percent, and the threshold that gives it: "" is answered where a score is above.

    Args:
        values: measure of the candidate answer to each question.
        has: whether the question has an answer.
        candidates: the candidate answers.
        scores: larger where a question is more likely to have none.
    """
    total = highest = float(sum(not h for h in has))
    threshold = 0.0
    for i in sorted(range(len(scores)), key=lambda i: scores[i]):
        if has[i]:
            total += values[i]
        elif candidates[i]:
            total -= 1
        if total > highest:
            highest, threshold = total, scores[i]
    return 100 * highest / len(values), threshold
