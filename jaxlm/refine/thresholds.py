"""Thresholds of a language, from the statistics of a clean sample of it (encyclopedia, books, edited news).

The thresholds of the English papers do not carry over: a Chinese text repeats more characters than an English one
words, and German words are longer. FineWeb2 (Penedo et al. 2025, arXiv:2506.20920, section 4.4) keeps the rules and
takes the thresholds from each language's own distribution; these are its methods:

- `quantile`: the rule drops the same fraction of the sample as the English threshold drops of clean English.
- `mean_std`: the threshold is as many standard deviations from the mean as the English one.
- `tail`: the rule drops the fraction `tail` of the sample.

As there, stop words are the words that make up more than 0.8 % of the sample. What the length of a document says, and
the rules on bullets and ellipses, stay as they are: a sample is not as long as the pages are.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from jaxlm.refine import languages, words
from jaxlm.refine.default_thresholds import ENGLISH
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition

Method = Literal["quantile", "mean_std", "tail"]
# language -> stage -> field -> value
Thresholds = dict[str, dict[str, dict[str, Any]]]
RuleT = TypeVar("RuleT", bound=LanguageRule)

# the thresholds that FineWeb2 derives; the list rule has no threshold in the paper of FineWeb, here it has datatrove's
RULES = (Repetition(), Quality(), FineWeb(max_newlines_per_word=0.3))
DERIVED = {
    "repetition": (
        "max_duplicate_lines",
        *(f"max_top_{n}_gram" for n in (2, 3, 4)),
        *(f"max_duplicate_{n}_grams" for n in range(5, 11)),
    ),
    "quality": (
        "min_mean_word_length", "max_mean_word_length", "min_alphabetic_words", "min_stop_words",
    ),
    "fineweb": ("min_punctuated_lines", "max_newlines_per_word"),
}  # fmt: skip
# measured on texts of several lines only
LINE_FIELDS = ("max_duplicate_lines", "min_punctuated_lines", "max_newlines_per_word")
STOP_WORD_FRACTION = 0.008
MIN_STOP_WORDS = 8
MIN_SAMPLE = 100
# fraction of the texts
MIN_MEASURED = 0.05


def derive(
    texts: Iterable[str],
    language: str,
    method: Method = "quantile",
    *,
    tail: float = 0.1,
    reference: Iterable[str] | None = None,
) -> Thresholds:
    """Thresholds of `language` from clean texts, as `for_language` and `LanguageRule.thresholds` take them.

    A field is left out where the sample says nothing about it: fewer than 5 % of the texts repeat a line, or fewer
    than 100 texts have three lines.

    Args:
        texts: documents, at least 100; a few thousand make the tails reliable.
        tail: of method `tail`.
        reference: clean English texts, instead of the statistics of C4 that are shipped.

    Raises:
        ValueError: too few texts, an unknown method, a tail outside (0, 0.5).
    """
    if method not in ("quantile", "mean_std", "tail"):
        raise ValueError(f"method: {method!r} is none of 'quantile', 'mean_std' and 'tail'")
    if not 0 < tail < 0.5:
        raise ValueError(f"tail: {tail} is not a fraction between 0 and 0.5")
    language = languages.code(language)
    texts = [text for text in texts if text.strip()]
    if len(texts) < MIN_SAMPLE:
        raise ValueError(
            f"texts: {len(texts)} are too few for statistics of {language!r}; give at least {MIN_SAMPLE} clean texts"
        )
    spaced = languages.conventions(language).spaced
    stop_words = languages.conventions(language).stop_words or frequent_words(texts)
    sample = statistics(texts, language, stop_words)
    english = ENGLISH if reference is None else summary(statistics(list(reference), "en"))

    several_lines = np.array([text.strip().count("\n") >= 2 for text in texts])

    result: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        fields: dict[str, Any] = {}
        for field in DERIVED[rule.name]:
            values = sample[rule.name].get(field)
            if values is None or (field.endswith("mean_word_length") and not spaced):
                continue
            if field in LINE_FIELDS:
                values = values[several_lines]
            if len(values) < MIN_SAMPLE or np.count_nonzero(values) < MIN_MEASURED * len(values):
                continue
            mean, std, beyond = english[rule.name][field]
            lower = field.startswith("min_")
            if method == "mean_std":
                if not std:
                    continue
                deviations = (getattr(rule, field) - mean) / std
                value = float(values.mean() + deviations * values.std())
            else:
                fraction = beyond if method == "quantile" else tail
                value = float(np.quantile(values, fraction if lower else 1 - fraction))
            value = rounded(value, lower, whole=field == "min_stop_words")
            # a minimum of nought drops nothing, a maximum of nought almost everything
            if value > 0:
                fields[field] = value
        if rule.name == "quality":
            fields["stop_words"] = list(stop_words)
            if not spaced:
                fields["min_mean_word_length"] = fields["max_mean_word_length"] = None
        result[rule.name] = fields
    return {language: result}


def statistics(
    texts: Iterable[str], language: str, stop_words: tuple[str, ...] = ()
) -> dict[str, dict[str, np.ndarray]]:
    """Stage -> field -> what each text has [N]."""
    result: dict[str, dict[str, np.ndarray]] = {}
    rules: tuple[LanguageRule, ...] = (
        Repetition(language=language),
        Quality(language=language, stop_words=stop_words),
        FineWeb(language=language, max_newlines_per_word=math.inf),
    )
    texts = list(texts)
    for rule in rules:
        values = collections.defaultdict(list)
        for text in texts:
            for field, value in rule.measures(text):
                values[field].append(value)
        result[rule.name] = {field: np.array(v, np.float64) for field, v in values.items()}
    return result


def summary(
    sample: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Stage -> field -> mean, standard deviation and the fraction of texts that the English threshold drops."""
    result: dict[str, dict[str, tuple[float, float, float]]] = {}
    for rule in RULES:
        result[rule.name] = {}
        for field in DERIVED[rule.name]:
            values, threshold = sample[rule.name][field], getattr(rule, field)
            beyond = values < threshold if field.startswith("min_") else values > threshold
            numbers = (values.mean(), values.std(), beyond.mean())
            result[rule.name][field] = tuple(round(float(n), 4) for n in numbers)  # type: ignore[assignment]
    return result


def frequent_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Words with letters that make up more than 0.8 % of the texts, but at least the 8 most frequent."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(word for word in words.split(text) if word.isalpha())
    total = counts.total()
    ranked = counts.most_common()
    return tuple(
        word
        for rank, (word, n) in enumerate(ranked)
        if rank < MIN_STOP_WORDS or n > STOP_WORD_FRACTION * total
    )


def rounded(value: float, lower: bool, whole: bool) -> float | int:
    """To 3 digits or a whole number, so that the rule gets looser rather than stricter."""
    scale = 1 if whole else 1000
    number = math.floor(value * scale) if lower else math.ceil(value * scale)
    return number if whole else number / scale


def for_language(rule: RuleT, language: str, thresholds: Thresholds) -> RuleT:
    """The rule for documents of one language, by thresholds that `derive` made.

    Raises:
        ValueError: the language is not there.
    """
    language = languages.code(language)
    if language not in thresholds:
        raise ValueError(
            f"thresholds: there are none for {language!r}, only for {sorted(thresholds)}; derive them from clean text"
        )
    return with_thresholds(rule, thresholds).adapted(language)


def with_thresholds(rule: RuleT, thresholds: Thresholds) -> RuleT:
    """The rule for documents of several languages, each by its own thresholds."""
    given = {
        language: stages[rule.name]
        for language, stages in thresholds.items()
        if rule.name in stages
    }
    return dataclasses.replace(rule, thresholds=given)
