"""64-bit hashes of words and of windows of words, for whole documents at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, UInt64

# bases of the two polynomials, odd so that they have inverses modulo 2^64
_CHARACTER_BASE = 0x9E3779B97F4A7C15
_WORD_BASE = 0xD1B54A32D192ED03


def mix(x: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """A permutation of 64-bit numbers; every bit depends on all bits of the input (splitmix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def span_hashes(text: str, spans: Int[np.ndarray, "N 2"]) -> UInt64[np.ndarray, "N"]:
    """A hash of the text within each span of offsets; equal texts have equal hashes, wherever they stand."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    # 0 must count, or "a" and "\0a" were equal
    prefix = _prefix(mix(codes + np.uint64(1)), _CHARACTER_BASE)
    starts, ends = spans[:, 0], spans[:, 1]
    return mix(_between(prefix, starts, ends, _CHARACTER_BASE) + (ends - starts).astype(np.uint64))


def window_hashes(words: UInt64[np.ndarray, "N"], length: int) -> UInt64[np.ndarray, "M"]:
    """The hash of every run of `length` words, in order; none if there are fewer words."""
    if len(words) < length:
        return np.zeros(0, np.uint64)
    starts = np.arange(len(words) - length + 1)
    prefix = _prefix(words, _WORD_BASE)
    return mix(_between(prefix, starts, starts + length, _WORD_BASE))


def covered(windows: Bool[np.ndarray, "M"], length: int) -> Bool[np.ndarray, "N"]:
    """Which words lie in a marked window; a document of N words has M = N - length + 1 windows."""
    edges = np.zeros(len(windows) + length, np.int64)
    edges[: len(windows)] += windows
    edges[length:] -= windows
    return np.cumsum(edges)[: len(windows) + length - 1] > 0


def _prefix(values: np.ndarray, base: int) -> np.ndarray:
    """Sum of value[j] * base^j over j < i, modulo 2^64, for i from 0 to N."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(base, len(values)), out=sums[1:])
    return sums


def _between(prefix: np.ndarray, starts: np.ndarray, ends: np.ndarray, base: int) -> np.ndarray:
    """The polynomial of the values from start to end, as if it began at 0."""
    inverse = _powers(pow(base, -1, 1 << 64), len(prefix))
    return (prefix[ends] - prefix[starts]) * inverse[starts]


_known_powers: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """base^0 to base^(count - 1) modulo 2^64; kept for the next call."""
    known = _known_powers.get(base)
    if known is None or len(known) < count:
        steps = np.full(max(count, 1 << 16), base, np.uint64)
        steps[0] = 1
        known = _known_powers[base] = np.cumprod(steps)
    return known[:count]
