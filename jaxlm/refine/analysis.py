"""What the rules need to know about the characters and words of a text, in a few passes over arrays.

Words are never made into strings: the rules compare them, and n-grams of them, by 64-bit hashes.
"""

from __future__ import annotations

import functools
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

# texts up to this length keep their analysis for the next rule: 128 of them take some 100 MB at most
CACHED_LENGTH = 50_000
BLOCK = 1 << 16
BASE = 0xD6E8FEB86659FD93  # of the hashes; odd, so that it has an inverse modulo 2 ** 64


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
    """Characters and words of a text, computed once; about 60 bytes a character in all.

    Attributes:
        codes: code points [C].
        flags: bits of `character_flags` [C].
        starts, ends: offsets of the words in the text [N], int32.
    """

    def __init__(self, text: str):
        self.codes = code_points(text)
        self.flags = character_flags()[self.codes]
        kind = self.flags & (SPACE | SINGLE | JOIN)
        starts = kind == SINGLE
        if (joins := kind == JOIN).any():
            # a mark goes with the character before it; at the start of a text it is a letter
            before = np.where(joins, np.int32(0), np.arange(len(kind), dtype=np.int32))
            kind = kind[np.maximum.accumulate(before, out=before)]
            kind[kind == JOIN] = 0
        self._inside = kind != SPACE
        letter = kind == 0
        starts[:1] |= letter[:1]
        starts[1:] |= letter[1:] & ~letter[:-1]
        ends = self._inside.copy()
        ends[:-1] &= ~self._inside[1:] | starts[1:]
        self.starts = np.flatnonzero(starts).astype(np.int32)
        self.ends = np.flatnonzero(ends).astype(np.int32) + np.int32(1)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each word [N], int32."""
        return self.ends - self.starts

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each word starts if the words are written without spaces, and the total at the end [N + 1], int32."""
        offsets = np.zeros(len(self.starts) + 1, np.int32)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    @functools.cached_property
    def prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        """Prefix hashes at `offsets` [N + 1], and what makes their differences independent of the position [N + 1].

        The hash of the characters of words i to j is `(prefix[j + 1] - prefix[i]) * factor[i]`, modulo 2 ** 64: a
        polynomial in BASE whose coefficients are the characters.
        """
        power, inverse = powers()
        offsets = self.offsets
        prefix = np.zeros(len(offsets), np.uint64)
        position, word, total = 0, 1, np.uint64(0)
        for begin in range(0, len(self.codes), BLOCK):
            codes = self.codes[begin : begin + BLOCK]
            terms = mixed(codes[self._inside[begin : begin + BLOCK]])
            if position:
                terms *= np.uint64(pow(BASE, position, 2**64))
            terms *= power[: len(terms)]
            np.cumsum(terms, out=terms)
            terms += total
            after = word + int(np.searchsorted(offsets[word:], position + len(terms), side="right"))
            prefix[word:after] = terms[offsets[word:after] - (position + 1)]
            if len(terms):
                position, word, total = position + len(terms), after, terms[-1]
        factor = inverse[offsets & (BLOCK - 1)]
        if position >= BLOCK:
            base = pow(BASE, -BLOCK, 2**64)
            high = [pow(base, i, 2**64) for i in range(position // BLOCK + 1)]
            factor *= np.array(high, np.uint64)[offsets // BLOCK]
        return prefix, factor

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """Hash of each word [N]."""
        prefix, factor = self.prefixes
        return (prefix[1:] - prefix[:-1]) * factor[:-1]

    def in_words(self, characters: np.ndarray) -> np.ndarray:
        """Which words [N] have one of the marked characters [C]."""
        if not len(self.starts):
            return np.zeros(0, bool)
        # a segment reaches to the start of the next word; spaces do not count
        return np.logical_or.reduceat(characters & self._inside, self.starts)

    def fraction_with_letters(self) -> float:
        """Fraction of the words between spaces that have a letter; 0 if there are none."""
        hidden = self.flags & WHITESPACE != 0
        first = ~hidden
        first[1:] &= hidden[:-1]
        starts = np.flatnonzero(first)
        if not len(starts):
            return 0.0
        letters = np.logical_or.reduceat(self.flags & LETTER != 0, starts)
        return np.count_nonzero(letters) / len(starts)


def code_points(text: str) -> np.ndarray:
    """Code points of a text [C], lone surrogates too; uint8 if all fit."""
    try:
        return np.frombuffer(text.encode("latin-1"), np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def mixed(codes: np.ndarray) -> np.ndarray:
    """A 64-bit number for each code point [C], far from those of its neighbours."""
    if codes.dtype == np.uint8:
        return _mixed_latin()[codes]
    result = codes.astype(np.uint64)
    result += np.uint64(0x9E3779B97F4A7C15)
    result *= np.uint64(0xBF58476D1CE4E5B9)
    result ^= result >> np.uint64(29)
    result *= np.uint64(0x94D049BB133111EB)
    return result


@functools.cache
def _mixed_latin() -> np.ndarray:
    return mixed(np.arange(256, dtype=np.uint32))


def among(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each hash [N] in the sorted `values`, -1 if it is none of them."""
    index = np.searchsorted(values, hashes)
    index[np.take(values, index, mode="clip") != hashes] = -1
    return index


@functools.cache
def powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of BASE and of its inverse [BLOCK], modulo 2 ** 64."""
    result = []
    for base in (BASE, pow(BASE, -1, 2**64)):
        table = np.full(BLOCK, base, np.uint64)
        table[0] = 1
        result.append(np.cumprod(table, out=table))
    return result[0], result[1]


def analyse(text: str) -> Analysis:
    """The analysis of a text; of short texts the last 128 are kept, for the next rule."""
    return _cached_analysis(text) if len(text) <= CACHED_LENGTH else Analysis(text)


_cached_analysis = functools.lru_cache(128)(Analysis)
