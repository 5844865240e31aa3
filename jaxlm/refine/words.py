"""Words of a text, fast, in any script: the unit of every rule and of deduplication.

A word is a run of letters, digits, marks and underscores; every other character that is not a space is a word of its
own. So is every character of a script that is written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese,
Tibetan), with the marks that follow it. For English this is `\\w+|[^\\w\\s]`: the repetition filter decides as with
spaCy's words on 99.7 % of the documents, and spaCy is the bottleneck of datatrove's filters.

Not for linguistics: no lemmas, and no dictionary for Chinese or Thai.
"""

from __future__ import annotations

import functools
import re
import unicodedata

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET

# what a character is, as bits of `character_flags`
SPACE = 1  # between words
SINGLE = 2  # starts a word of its own
JOIN = 4  # belongs to what the character before it belongs to
PUNCTUATION = 8  # in datatrove's PUNCTUATION_SET
LETTER = 16  # str.isalpha
WHITESPACE = 32  # str.isspace
UPPERCASE = 64  # str.isupper
DIGIT = 128  # str.isdigit

# letters of scripts that are written without spaces
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # CJK radicals, kana, bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # CJK ideographs
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Burmese
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1AFF0, 0x1B16F),  # kana
    (0x20000, 0x33FFF),  # CJK ideographs
)
ZERO_WIDTH_SPACE = 0x200B

# texts up to this length keep their analysis for the next rule: 128 of them take at most some 100 MB
CACHED_LENGTH = 50_000

# the same words where there are neither marks nor other scripts, three times as fast
ASCII_WORD = re.compile(r"\w+|[^\w\s]")
SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s|$)|[。！？｡؟।]+[”’」』）"'»)\]]*""")


def split(text: str, language: str = "en") -> list[str]:
    """The words of a text, in order.

    `language` changes nothing today: the script of a character decides. It is part of the interface for languages
    whose words need more than that.
    """
    if text.isascii():
        return ASCII_WORD.findall(text)
    starts, ends = spans(text, language).T.tolist()
    return [text[start:end] for start, end in zip(starts, ends)]


def spans(text: str, language: str = "en") -> np.ndarray:
    """Offsets [N, 2] of the words of `split`: `text[start:end]`, int64."""
    return analyse(text).spans


def count(text: str, spaced: bool) -> int:
    """Size of a line or text: words between spaces, or characters if the language is written without spaces."""
    return len(text.split()) if spaced else sum(map(len, text.split()))


def sentences(text: str) -> list[str]:
    """Sentences of a line: cut after terminal punctuation and the quotes and brackets that close it.

    The parts together are the text. Latin punctuation ends a sentence only before a space or the end.
    """
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or text[ends[-1] :].strip():
        ends.append(len(text))
    ends[-1] = len(text)
    return [text[a:b] for a, b in zip([0, *ends[:-1]], ends)]


@functools.cache
def character_flags() -> np.ndarray:
    """Bits of every code point [0x110000], uint8."""
    flags = np.zeros(0x110000, np.uint8)
    # planes 4 to 13 are unassigned, 15 and 16 for private use
    for code in (*range(0x40000), *range(0xE0000, 0xE1000)):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "M" or category == "Cf":
            flags[code] = JOIN
        elif not (category[0] in "LN" or category == "Pc"):
            flags[code] = SINGLE
        if character.isalpha():
            flags[code] |= LETTER
        if character.isupper():
            flags[code] |= UPPERCASE
        if character.isdigit():
            flags[code] |= DIGIT
        if character.isspace():
            flags[code] = SPACE | WHITESPACE
    flags[0x40000:0xE0000] = flags[0xE1000:] = SINGLE
    for first, last in UNSPACED:
        block = flags[first : last + 1]
        block[block & (JOIN | SPACE) == 0] |= SINGLE
    flags[ZERO_WIDTH_SPACE] = SPACE
    flags[[ord(c) for c in PUNCTUATION_SET]] |= PUNCTUATION
    flags.flags.writeable = False
    return flags


class Analysis:
    """What the rules need to know about the characters and words of a text, computed once.

    Attributes:
        codes: code points [C].
        flags: bits of `character_flags` [C].
        spans: offsets of the words [N, 2].
    """

    def __init__(self, text: str):
        self.length = len(text)
        self.codes = code_points(text)
        self.flags = character_flags()[self.codes]
        kind = self.flags & (SPACE | SINGLE | JOIN)
        single = kind == SINGLE
        if (joins := kind == JOIN).any():
            # a mark goes with the character before it; at the start of a text it is a letter
            before = np.maximum.accumulate(np.where(joins, 0, np.arange(len(kind))))
            kind = kind[before]
            kind[kind == JOIN] = 0
        self._inside = kind != SPACE
        letter = kind == 0
        starts = single
        starts[:1] |= letter[:1]
        starts[1:] |= letter[1:] & ~letter[:-1]
        ends = self._inside.copy()
        ends[:-1] &= ~self._inside[1:] | starts[1:]
        self.spans = np.empty((np.count_nonzero(starts), 2), np.int64)
        self.spans[:, 0] = np.flatnonzero(starts)
        np.add(np.flatnonzero(ends), 1, out=self.spans[:, 1])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each word [N]."""
        return self.spans[:, 1] - self.spans[:, 0]

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each word starts if the words are written without spaces, and the total at the end [N + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @functools.cached_property
    def prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        """Prefix hashes at `offsets` [N + 1], and what makes their differences independent of the position [N + 1].

        The hash of the characters of words i to j is `(prefix[j + 1] - prefix[i]) * factor[i]`, modulo 2 ** 64.
        """
        codes = self.codes[self._inside].astype(np.uint64)
        codes += np.uint64(0x9E3779B97F4A7C15)
        codes *= np.uint64(0xBF58476D1CE4E5B9)
        codes ^= codes >> np.uint64(29)
        codes *= np.uint64(0x94D049BB133111EB)
        power, inverse = powers(len(codes))
        codes *= power[: len(codes)]
        prefix = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes, out=prefix[1:])
        return prefix[self.offsets], inverse[self.offsets]

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """Hash of each word [N]."""
        prefix, factor = self.prefixes
        return (prefix[1:] - prefix[:-1]) * factor[:-1]

    def in_words(self, characters: np.ndarray) -> np.ndarray:
        """Which words [N] have one of the marked characters [C]."""
        if not len(self.spans):
            return np.zeros(0, bool)
        # a segment reaches to the start of the next word; spaces do not count
        return np.logical_or.reduceat(characters & self._inside, self.spans[:, 0])

    def fraction_with_letters(self) -> float:
        """Fraction of the words between spaces that have a letter; 0 if there are none."""
        visible = self.flags & WHITESPACE == 0
        starts = np.flatnonzero(visible & np.concatenate([[True], ~visible[:-1]]))
        if not len(starts):
            return 0.0
        return float(np.logical_or.reduceat(self.flags & LETTER != 0, starts).mean())


def code_points(text: str) -> np.ndarray:
    """Code points of a text [C], lone surrogates too; uint8 if all fit."""
    try:
        return np.frombuffer(text.encode("latin-1"), np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


BASE = 0xD6E8FEB86659FD93  # odd, so that it has an inverse modulo 2 ** 64


def powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of BASE and of its inverse, from exponent 0 to at least `length`, modulo 2 ** 64."""
    size = 1 << max(length, CACHED_LENGTH).bit_length()
    return _cached_powers(size) if length <= CACHED_LENGTH else _powers(length + 1)


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    result = []
    for base in (BASE, pow(BASE, -1, 2**64)):
        table = np.full(size, base, np.uint64)
        table[0] = 1
        result.append(np.cumprod(table, out=table))
    return result[0], result[1]


_cached_powers = functools.cache(_powers)


def analyse(text: str) -> Analysis:
    """The analysis of a text; of short texts the last 128 are kept, for the next rule."""
    return _cached_analysis(text) if len(text) <= CACHED_LENGTH else Analysis(text)


_cached_analysis = functools.lru_cache(128)(Analysis)
