"""Thresholds of languages for which those of the English papers do not hold, and the statistics that led to them.

Chinese, where a word is a character:

- Repetition: `thresholds.derive` by `quantile`, from 2,403 paragraphs of Wikipedia (contexts of CMRC 2018) and 829
  abstracts of papers (CSL): each rule drops the fraction of this clean text that it drops of C4 in English. Where that
  would be stricter than Gopher's threshold, Gopher's stays. FineWeb2's values for Chinese, from jieba's words, are
  near: 0.198, 0.182, 0.167, 0.154, 0.140, 0.127 for repeated 5- to 10-grams (its configs/cmn_Hani.yml).
- `min_alphabetic_words` likewise (a seventh of the characters are punctuation marks); `min_stop_words` lets 99 % of
  that text pass.
- Lengths: 24,753 sentence pairs (Tatoeba) have 1.40 Han characters, and 1.59 characters in all, for an English word,
  and 0.32 characters for an English character. So 50 words become 70, lines of 30 characters 10, lines of 2, 3 and 10
  words 3, 5 and 16 characters, and 0.1 hashes a word 0.06.
- The mean length of words says nothing, and what stands between spaces is a paragraph: these rules are off.

The other languages without spaces take the same until somebody derives theirs. German words are longer: FineWeb2's
configs/deu_Latn.yml.
"""

from __future__ import annotations

from typing import Any

CHINESE: dict[str, dict[str, Any]] = {
    "repetition": {
        "max_top_3_gram": 0.191,
        "max_top_4_gram": 0.219,
        "max_duplicate_5_grams": 0.195,
        "max_duplicate_6_grams": 0.187,
        "max_duplicate_7_grams": 0.151,
        "max_duplicate_8_grams": 0.131,
        "max_duplicate_9_grams": 0.119,
    },
    "quality": {
        "min_words": 70,
        "max_words": 140_000,
        "min_mean_word_length": None,
        "max_mean_word_length": None,
        "max_hashes": 0.06,
        "min_alphabetic_words": 0.702,
        "min_stop_words": 4,
    },
    "fineweb": {"short_line": 10},
    "lines": {"min_words": 3, "short_line": 16},
    "c4": {"min_words_per_line": 5, "max_word_length": None},
}
# language -> stage -> field -> value
THRESHOLDS: dict[str, dict[str, dict[str, Any]]] = {
    **dict.fromkeys(("zh", "ja", "th", "lo", "km", "my", "bo"), CHINESE),
    "de": {"quality": {"max_mean_word_length": 15}},
}

# stage -> field -> mean, standard deviation, fraction beyond the English threshold: 300 documents of C4 (English),
# `thresholds.summary(thresholds.statistics(texts, "en"))`
ENGLISH: dict[str, dict[str, tuple[float, float, float]]] = {
    "repetition": {
        "max_duplicate_lines": (0.0, 0.0, 0.0),
        "max_top_2_gram": (0.0349, 0.0403, 0.0133),
        "max_top_3_gram": (0.0399, 0.053, 0.0167),
        "max_top_4_gram": (0.0443, 0.0637, 0.0267),
        "max_duplicate_5_grams": (0.0199, 0.0532, 0.0267),
        "max_duplicate_6_grams": (0.0149, 0.0427, 0.0167),
        "max_duplicate_7_grams": (0.0119, 0.0444, 0.02),
        "max_duplicate_8_grams": (0.0103, 0.0447, 0.0233),
        "max_duplicate_9_grams": (0.0093, 0.0455, 0.0233),
        "max_duplicate_10_grams": (0.0087, 0.0461, 0.0267),
    },
    "quality": {
        "min_mean_word_length": (4.7181, 0.5132, 0.0),
        "max_mean_word_length": (4.7181, 0.5132, 0.0),
        "min_alphabetic_words": (0.9724, 0.0376, 0.0067),
        "min_stop_words": (5.9933, 2.0083, 0.05),
    },
    "fineweb": {
        "min_punctuated_lines": (0.985, 0.0798, 0.0),
        "max_newlines_per_word": (0.0186, 0.0148, 0.0),
    },
}
