"""Words, their offsets and hashes, against a slow loop over the characters."""

import unicodedata

import numpy as np
import pytest

pytest.importorskip("datatrove")
from refine_texts import page

from jaxlm.refine import analysis, words
from jaxlm.refine.analysis import Analysis

TABLE = {
    "Don't panic: 3.14, e.g. _this_!": "Don ' t panic : 3 . 14 , e . g . _this_ !",
    "我爱北京2008年。": "我 爱 北 京 2008 年 。",
    "日本語のテスト": "日 本 語 の テ ス ト",
    "한국어 단어": "한국어 단어",
    "Привет, мир": "Привет , мир",
    "हिन्दी में": "हिन्दी में",
    "ภาษาไทย": "ภ า ษ า ไ ท ย",
    "กำลังใจ": "ก ำ ล ั ง ใ จ".replace(" ั", "ั"),
    "cafe\u0301 au lait": "cafe\u0301 au lait",
    "می\u200cخواهم": "می\u200cخواهم",
    "zero\u200bwidth": "zero width",
    "\u0301abc": "\u0301abc",
    "❤\ufe0f ok": "❤\ufe0f ok",
    "a\x1cb\x85c\u3000d": "a b c d",
    "": "",
    " \n\t": "",
    "\ud800\x00x": "\ud800 \x00 x",
}


@pytest.mark.parametrize("text", TABLE)
def test_words(text):
    assert words.split(text) == TABLE[text].split(" ") * bool(TABLE[text])


def slow_spans(text: str) -> list[tuple[int, int]]:
    """The definition of a word, one character at a time."""
    result: list[list[int]] = []
    run = False  # whether the word before goes on with a letter
    inside = False  # whether a mark belongs to the word before
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        if character.isspace() or character == "\u200b":
            run = inside = False
        elif category[0] == "M" or category == "Cf":
            if i == 0:
                result.append([0, 0])
                run = inside = True
            if inside:
                result[-1][1] = i + 1
        else:
            unspaced = any(a <= ord(character) <= b for a, b in analysis.UNSPACED)
            letter = (category[0] in "LN" or category == "Pc") and not unspaced
            if not (letter and run):
                result.append([i, 0])
            result[-1][1] = i + 1
            run, inside = letter, True
    return [tuple(span) for span in result]


@pytest.mark.parametrize("chinese", [False, True])
def test_spans_are_the_words_by_their_definition(chinese):
    for seed in range(100):
        text = page(seed, chinese)
        spans = words.spans(text)
        assert spans.dtype == np.int64
        assert [tuple(s) for s in spans.tolist()] == slow_spans(text), f"page({seed}, {chinese})"
        assert words.split(text) == [text[a:b] for a, b in spans]


def test_every_kind_of_character_is_classified():
    # one character of each category in each 256 code points, between two letters
    samples = {}
    for code in range(0x20000):
        samples.setdefault((unicodedata.category(chr(code)), code >> 8), chr(code))
    text = "a".join(samples.values())
    assert [tuple(s) for s in words.spans(text).tolist()] == slow_spans(text)
    assert words.split(text) == [text[a:b] for a, b in slow_spans(text)]


def test_equal_words_have_equal_hashes_wherever_they_are():
    text = "the cat the\u200b cat, 的 cat 的 cats 1 11 " + "x" * 3000 + " " + "x" * 3001
    result = Analysis(text)
    by_hash: dict[int, set[str]] = {}
    for word, value in zip(words.split(text), result.hashes.tolist()):
        by_hash.setdefault(value, set()).add(word)
    assert all(len(group) == 1 for group in by_hash.values())
    assert len(by_hash) == len(set(words.split(text)))
    # in long texts, which are hashed block by block, and in those of wider characters
    for end in ("x", "的"):
        other = Analysis("cat " * 60_000 + end)
        assert set(other.hashes[:-1].tolist()) == {result.hashes[1]}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One. Two! Three?", 3),
        ("Version 1.5 is out... maybe", 2),
        ('He said "Go." Then he left.', 2),
        ("今天下雨。他说：“走吧！”然后走了", 3),
        ("提出了新的方法.仿真结果表明它简化了过程.", 2),
        ("no end", 1),
        ("", 1),
        ("Done.  ", 1),
    ],
)
def test_sentences(text, number):
    parts = words.sentences(text)
    assert len(parts) == number
    assert "".join(parts) == text


def test_a_text_is_analysed_once():
    text = page(7)
    assert analysis.analyse(text) is analysis.analyse(str(text.encode("utf-8", "replace"), "utf-8"))
    long = "word " * analysis.CACHED_LENGTH
    assert analysis.analyse(long) is not analysis.analyse(long)
