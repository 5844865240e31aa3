"""Scores of written texts against references, in percent: BLEU and chrF, ROUGE, exact match and F1.

BLEU and chrF are sacrebleu's (Post 2018, 1804.08771), ROUGE is rouge-score's, both in the extra `scores`. How a text is
cut into words decides the numbers, so each score has a signature that is kept beside it.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from jaxlm.tasks.downstream import answer_scores

# kind -> the score by which models are compared
MAIN = {"translation": "bleu", "summary": "rougeL", "answer": "f1"}
# kind -> (module, package) that it needs
_PACKAGES = {
    "translation": ("sacrebleu", "sacrebleu"),
    "summary": ("rouge_score", "rouge-score"),
}
# language -> (module, package) with which sacrebleu cuts it into words
_SEGMENTERS = {"ja": ("MeCab", "sacrebleu[ja]"), "ko": ("mecab_ko", "sacrebleu[ko]")}
# texts that are looked at to guess their kind and language
_LOOKED_AT = 2000
_HAN, _KANA, _HANGUL = "\u3400-\u4dbf\u4e00-\u9fff", "\u3040-\u30ff", "\u1100-\u11ff\uac00-\ud7af"
_CHARACTER = re.compile(f"[{_HAN}{_KANA}{_HANGUL}]")
# rougeLsum compares sentences, which are lines
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")


def kind_of(sources: Sequence[str], targets: Sequence[str]) -> str:
    """The kind of scores that the lengths of texts suggest.

    Targets of at most three words (or six characters of Chinese) in the median are answers; targets less than half as
    long as their sources are summaries; others are translations, whose lengths may differ as much as those of Chinese
    and English.
    """
    pairs = list(itertools.islice(zip(sources, targets), _LOOKED_AT))
    lengths = sorted(len(words(target)) for _, target in pairs)
    if lengths[len(lengths) // 2] <= (6 if language_of(targets) in ("zh", "ja", "ko") else 3):
        return "answer"
    read, written = (sum(len(words(pair[side])) for pair in pairs) for side in (0, 1))
    return "summary" if 2 * written < read else "translation"


def language_of(texts: Sequence[str]) -> str:
    """zh, ja or ko by the letters of texts, en if nearly all of them are in ASCII, und (undetermined) otherwise."""
    letters = [c for text in texts[:_LOOKED_AT] for c in text if c.isalpha()]
    fraction = lambda chars: len(re.findall(f"[{chars}]", "".join(letters))) / max(len(letters), 1)
    if fraction(_KANA) > 0.05:
        return "ja"
    if fraction(_HANGUL) > 0.3:
        return "ko"
    if fraction(_HAN) > 0.3:
        return "zh"
    return "en" if fraction("\x00-\x7f") > 0.995 else "und"


def words(text: str) -> list[str]:
    """The words of a text in lower case; of Chinese, Japanese and Korean the characters."""
    return "".join(map(_spaced, text.lower())).split()


@functools.cache
def _spaced(character: str) -> str:
    """A letter, mark or digit as it is, or between spaces if it is a word; a space for all others."""
    if _CHARACTER.match(character):
        return f" {character} "
    return character if unicodedata.category(character)[0] in "LMN" else " "


def check(kind: str, language: str | None) -> None:
    """Checks, before anything takes time, that the packages of a kind of scores are installed.

    Raises:
        ValueError: one is missing.
    """
    needed = [_PACKAGES[kind]] if kind in _PACKAGES else []
    if kind == "translation" and language in _SEGMENTERS:
        needed.append(_SEGMENTERS[language])
    for module, package in needed:
        if importlib.util.find_spec(module) is None:
            about = f" of texts in {language}" if package.startswith("sacrebleu[") else ""
            raise ValueError(
                f"task.score={kind}{about} needs the package {package}: pip install '{package}' (pip install "
                "'jaxlm[scores]' has sacrebleu and rouge-score), or choose another task.score"
            )


def score(
    kind: str, language: str | None, predictions: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """The scores of a kind, in percent, over all texts."""
    check(kind, language)
    return _SCORES[kind](predictions, references, language)


def signatures(kind: str, language: str | None) -> dict[str, str]:
    """Score -> how it is computed; empty for a kind that is not known yet."""
    if kind == "translation":
        metrics = _sacrebleu(language)
        for metric in metrics.values():
            # the signature has the number of references, which it knows only then
            metric.corpus_score(["a"], [["a"]])
        return {name: str(metric.get_signature()) for name, metric in metrics.items()}
    if kind == "summary":
        cut = "letters and digits of ASCII, Porter stemmer"
        if language != "en":
            cut = "words of Unicode, Chinese, Japanese and Korean by characters, no stemmer"
        return {"rouge": f"F1 of rouge-score, words: {cut}; sentences of Lsum end with .!?。！？"}
    if kind == "answer":
        rules = {"chinese": "CMRC 2018", "english": "SQuAD 2.0"}[_of_answers(language)]
        return {"f1": f"normalised as by the script of {rules}"}
    return {}


def _sacrebleu(language: str | None) -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    # force: no advice on texts that look tokenized
    return {"bleu": BLEU(trg_lang=language or "", force=True), "chrf": CHRF()}


def _translation(
    predictions: Sequence[str], references: Sequence[str], language: str | None
) -> dict[str, float]:
    metrics = _sacrebleu(language)
    return {
        name: float(metric.corpus_score(list(predictions), [list(references)]).score)
        for name, metric in metrics.items()
    }


class _Words:
    """A tokenizer for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """See `words`."""
        return words(text)


def _summary(
    predictions: Sequence[str], references: Sequence[str], language: str | None
) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    # the package's own tokenizer drops all letters outside ASCII
    own = {"use_stemmer": True} if language == "en" else {"tokenizer": _Words()}
    scorer = RougeScorer(names, **own)
    lines = lambda text: _SENTENCE_END.sub("\n", text)
    sums = dict.fromkeys(names, 0.0)
    for prediction, reference in zip(predictions, references):
        for name, value in scorer.score(lines(reference), lines(prediction)).items():
            sums[name] += value.fmeasure
    return {name: 100 * total / max(len(references), 1) for name, total in sums.items()}


def _answer(
    predictions: Sequence[str], references: Sequence[str], language: str | None
) -> dict[str, float]:
    return answer_scores.score([[x] for x in references], predictions, _of_answers(language))


def _of_answers(language: str | None) -> str:
    """The language as `answer_scores` knows it."""
    return "chinese" if language == "zh" else "english"


_SCORES: dict[str, Callable[..., dict[str, float]]] = {
    "translation": _translation,
    "summary": _summary,
    "answer": _answer,
}
