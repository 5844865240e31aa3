"""64-bit hashes of windows of words, of which `analysis` has the hashes, for whole documents at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt64

# base of the polynomial, odd so that it has an inverse modulo 2^64
_BASE = 0xD1B54A32D192ED03


def mix(x: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """A permutation of 64-bit numbers; every bit depends on all bits of the input (splitmix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def window_hashes(words: UInt64[np.ndarray, " N"], length: int) -> UInt64[np.ndarray, " M"]:
    """The hash of every run of `length` words, in order; none if there are fewer words."""
    if len(words) < length:
        return np.zeros(0, np.uint64)
    prefix = np.zeros(len(words) + 1, np.uint64)
    # a hash of analysis is a polynomial too: mixed, its words do not add up to those of others
    np.cumsum(mix(words) * _powers(_BASE, len(words)), out=prefix[1:])
    windows = prefix[length:] - prefix[:-length]
    # as if each began at 0
    return mix(windows * _powers(pow(_BASE, -1, 1 << 64), len(windows)))


def covered(windows: Bool[np.ndarray, " M"], length: int) -> Bool[np.ndarray, " N"]:
    """Which words lie in a marked window; a document of N words has M = N - length + 1 windows."""
    edges = np.zeros(len(windows) + length, np.int64)
    edges[: len(windows)] += windows
    edges[length:] -= windows
    return np.cumsum(edges)[: len(windows) + length - 1] > 0


_known_powers: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """base^0 to base^(count - 1) modulo 2^64; kept for the next call."""
    known = _known_powers.get(base)
    if known is None or len(known) < count:
        steps = np.full(max(count, 1 << 16), base, np.uint64)
        steps[0] = 1
        known = _known_powers[base] = np.cumprod(steps)
    return known[:count]
