"""Why a document was dropped, in plain words."""

from __future__ import annotations

import re

from jaxlm.report import formats

# rule, or stage/rule where it says something else -> a sentence; {value:%} is a fraction as percent
_SENTENCES = {
    "read/damaged": "The record cannot be read: {value}.",
    # URLs
    "domain": "The domain {value} is on the block-list.",
    "subdomain": "The host {value} is on the block-list.",
    "url": "The URL is on the block-list.",
    "hard_word": "The URL has the word “{value}”, of which none is allowed.",
    "soft_words": "The URL has the words “{value}”; allowed: {threshold}.",
    "strict_word": "The URL has “{value}” among its letters.",
    "curated_source": "{value} is a source that is mixed in from a curated corpus.",
    # extraction
    "too_large": "The page has {value} bytes (at most {threshold}).",
    "extraction/empty": "No text was found on the page.",
    "time_limit": "Extraction took {value} seconds; the limit is {threshold}.",
    "extractor_error": "The extractor failed: {value}.",
    "extractor_died": "The extractor's process ended: {value}.",
    # language
    "other_language": "The language is {value}; kept: {threshold}.",
    "low_score": "The language was recognized with a score of {value} (at least {threshold}).",
    # repetition
    "max_duplicate_paragraphs": "{value:%} of the paragraphs repeat an earlier one (at most {threshold:%}).",
    "max_duplicate_paragraph_characters": (
        "{value:%} of the characters are in paragraphs that repeat an earlier one (at most {threshold:%})."
    ),
    "max_duplicate_lines": "{value:%} of the lines repeat an earlier one (at most {threshold:%}).",
    "max_duplicate_line_characters": (
        "{value:%} of the characters are in lines that repeat an earlier one (at most {threshold:%})."
    ),
    "max_top_n_gram": (
        "{value:%} of the characters are in the most frequent run of {n} words (at most {threshold:%})."
    ),
    "max_duplicate_n_grams": (
        "{value:%} of the characters are in runs of {n} words that repeat an earlier one (at most {threshold:%})."
    ),
    # quality
    "min_words": "The text has {value} words (at least {threshold}).",
    "max_words": "The text has {value} words (at most {threshold}).",
    "min_mean_word_length": "A word has {value} characters on average (at least {threshold}).",
    "max_mean_word_length": "A word has {value} characters on average (at most {threshold}).",
    "max_hashes": "There are {value} # to a word (at most {threshold}).",
    "max_ellipses": "There are {value} ellipses to a word (at most {threshold}).",
    "max_bullet_lines": "{value:%} of the lines begin with a bullet (at most {threshold:%}).",
    "max_ellipsis_lines": "{value:%} of the lines end with an ellipsis (at most {threshold:%}).",
    "min_alphabetic_words": "{value:%} of the words have a letter (at least {threshold:%}).",
    "min_stop_words": "The text has {value} of the language's stop words (at least {threshold}).",
    # lines
    "max_removed_words": "Corrections would take out {value:%} of the words (at most {threshold:%}).",
    # duplicates
    "near_duplicate": "One of {value} documents like each other, of which one is kept ({threshold}).",
    "too_little_left": "{value} characters are left after cutting repeated spans (at least {threshold}).",
    "seen_before": "An earlier document has the same URL.",
    # decontamination, classifier
    "shared_run": "A run of words is in evaluation data: {value}.",
    "classifier/low_score": "The classifier's score is {value} (at least {threshold}).",
    # C4 and FineWeb
    "lorem_ipsum": "There is placeholder text: “{value}”.",
    "curly_bracket": "There is a curly bracket, as in program code: “{value}”.",
    "min_sentences": "The text has {value} sentences (at least {threshold}).",
    "min_punctuated_lines": "{value:%} of the lines end like a sentence (at least {threshold:%}).",
    "max_short_lines": "{value:%} of the lines are short (at most {threshold:%}).",
    "max_newlines_per_word": "There are {value} line ends to a word (at most {threshold}).",
    "empty": "No text is left.",
}
_N_GRAMS = re.compile(r"(max_(?:top|duplicate)_)(\d+)(_grams?)")


def sentence(stage: str, rule: str, value: object, threshold: object) -> str:
    """What the document has and what the rule asks for; for a rule without a sentence, its name and numbers."""
    number = _N_GRAMS.fullmatch(rule)
    name = f"{number[1]}n{number[3]}" if number else rule
    words = _SENTENCES.get(f"{stage}/{name}") or _SENTENCES.get(name)
    if words is None:
        return f"{rule.replace('_', ' ')}: {_shown(value)}; threshold: {_shown(threshold)}"
    # with as many digits as tell the value from the threshold
    for digits in range(3, 10):
        shown = _Shown(value, digits), _Shown(threshold, digits)
        if value == threshold or f"{shown[0]:%}" != f"{shown[1]:%}":
            break
    return words.format(value=shown[0], threshold=shown[1], n=number[2] if number else "")


class _Shown:
    """A value for a format: `{value}` as it is, `{value:%}` a fraction as percent."""

    def __init__(self, value: object, digits: int) -> None:
        self.value, self.digits = value, digits

    def __format__(self, how: str) -> str:
        if how == "%" and isinstance(self.value, (int, float)):
            return f"{100 * self.value:.{self.digits}g}%"
        return _shown(self.value, self.digits)


def _shown(value: object, digits: int = 3) -> str:
    if isinstance(value, float):
        return formats.number(int(value) if value.is_integer() else value, digits)
    return f"{value:,}" if isinstance(value, int) else str(value)
