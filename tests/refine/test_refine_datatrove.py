"""The same decisions as datatrove's filters on the same words."""

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters import gopher_repetition_filter as gopher
from datatrove.utils.word_tokenizers import WordTokenizer
from refine_texts import CLEAN, DIRTY, page

from jaxlm.refine import words
from jaxlm.refine.c4 import C4
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition


class OurWords(WordTokenizer):
    def word_tokenize(self, text):
        return words.split(text)

    def sent_tokenize(self, text):
        return words.sentences(text)

    def span_tokenize(self, text):
        start, result = 0, []
        for sentence in words.sentences(text):
            result.append((start, start + len(sentence)))
            start += len(sentence)
        return result


# datatrove's reason -> ours
REASONS = {
    "empty": "empty",
    "dup_para_frac": "max_duplicate_paragraphs",
    "dup_para_char_frac": "max_duplicate_paragraph_characters",
    "dup_line_frac": "max_duplicate_lines",
    "dup_line_char_frac": "max_duplicate_line_characters",
    **{f"top_{n}_gram": f"max_top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_duplicate_{n}_grams" for n in range(5, 11)},
    "gopher_short_doc": "min_words",
    "gopher_long_doc": "max_words",
    "gopher_below_avg_threshold": "min_mean_word_length",
    "gopher_above_avg_threshold": "max_mean_word_length",
    "gopher_too_many_hashes": "max_hashes",
    "gopher_too_many_ellipsis": "max_ellipses",
    "gopher_too_many_bullets": "max_bullet_lines",
    "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
    "gopher_below_alpha_threshold": "min_alphabetic_words",
    "gopher_enough_stop_words": "min_stop_words",
    "line_punct_ratio": "min_punctuated_lines",
    "short_line_ratio": "max_short_lines",
    "char_dup_ratio": "max_duplicate_line_characters",
    "list_ratio": "max_newlines_per_word",
    "too_few_sentences": "min_sentences",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
}
WORDS = OurWords()
STOP_WORDS = ("的", "是", "了", "在", "和")


def quality(**arguments):
    return Quality(by_language=False, alphabetic="words", **arguments)


def fineweb(**arguments):
    return FineWeb(by_language=False, **arguments)


# n-gram thresholds so low that each of them drops something
FRACTIONS = ("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac")
TOP = {2: 0.03, 3: 0.03, 4: 0.04}
DUPLICATE = {n: 0.12 - 0.01 * n for n in range(5, 11)}
LOW = {"top_n_grams": tuple(TOP.items()), "dup_n_grams": tuple(DUPLICATE.items())}
OUR_LOW = {f"max_top_{n}_gram": value for n, value in TOP.items()}
OUR_LOW |= {f"max_duplicate_{n}_grams": value for n, value in DUPLICATE.items()}

PAIRS = {
    "repetition": (GopherRepetitionFilter(language=WORDS), Repetition(by_language=False)),
    "n-grams": (
        GopherRepetitionFilter(language=WORDS, **dict.fromkeys(FRACTIONS), **LOW),
        Repetition(by_language=False, **dict.fromkeys(map(REASONS.get, FRACTIONS)), **OUR_LOW),
    ),
    "quality": (GopherQualityFilter(language=WORDS), quality()),
    "quality by other thresholds": (
        GopherQualityFilter(
            language=WORDS,
            stop_words=list(STOP_WORDS),
            min_avg_word_length=None,
            min_stop_words=4,
            max_non_alpha_words_ratio=0.85,
        ),
        quality(
            stop_words=STOP_WORDS,
            min_mean_word_length=None,
            min_stop_words=4,
            min_alphabetic_words=0.85,
        ),
    ),
    "fineweb": (
        FineWebQualityFilter(language=WORDS, char_duplicates_ratio=0.1, new_line_ratio=9e9),
        fineweb(),
    ),
    "fineweb's list rule": (
        FineWebQualityFilter(
            language=WORDS,
            line_punct_thr=0,
            short_line_thr=2,
            char_duplicates_ratio=2,
            new_line_ratio=0.1,
        ),
        fineweb(
            min_punctuated_lines=0,
            max_short_lines=None,
            max_duplicate_line_characters=None,
            max_newlines_per_word=0.1,
        ),
    ),
    "c4": (C4QualityFilter(language=WORDS), C4(by_language=False)),
    "c4 without punctuation": (
        C4QualityFilter(language=WORDS, filter_no_terminal_punct=False),
        C4(by_language=False, terminal_punctuation=False),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("chinese", [False, True], ids=["English", "Chinese"])
def test_the_decisions_are_datatroves(pair, chinese):
    theirs, ours = PAIRS[pair]
    seen = set()
    dirty = [text for text, _ in DIRTY.values()]
    texts = {f"page({seed}, {chinese})": page(seed, chinese) for seed in range(250)}
    texts |= CLEAN | dict(zip(DIRTY, dirty)) | {"white space": " \n"}
    for name, text in texts.items():
        document = Document(text=text, id="0")
        result = theirs.filter(document)
        expected = None if result is True else REASONS[result[1]] if text else "empty"
        own = Document(text=text, id="0")
        drop = ours.check(own)
        assert (drop and drop.rule) == expected, f"{pair}, {name}"
        seen.add(expected)
        if not drop:
            assert own.text == document.text, f"{pair}, {name}"
    assert len(seen) > 1, "the pages are all kept or all dropped for one reason"


@pytest.mark.parametrize("chinese", [False, True], ids=["English", "Chinese"])
def test_n_grams_of_a_long_document_are_counted_as_datatrove_counts_them(chinese):
    # several blocks of hashes, longer than what is cached
    text = "\n".join(page(seed, chinese) for seed in range(100, 300))
    assert len(text) > 3 * 65536
    tokens = words.split(text)
    values = dict(Repetition(by_language=False).measures(text))
    for n in (2, 3, 4):
        expected = gopher.find_top_duplicate(gopher.get_n_grams(tokens, n))
        assert values[f"max_top_{n}_gram"] == expected / len(text)
    for n in range(5, 11):
        expected = gopher.find_all_duplicate(tokens, n)
        assert values[f"max_duplicate_{n}_grams"] == expected / len(text)
