"""Random numbers as pure functions of counters, so that any example can be made alone, in any order, on any process.

Each key is mixed in with a step of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"): numbers that differ in the last key only are a SplitMix64 sequence whose seed is the mix of the others.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def bits(*keys: np.ndarray | int) -> np.ndarray:
    """64 random bits for each combination of integer keys, which are broadcast against each other: uint64."""
    state = np.zeros((), np.uint64)
    with np.errstate(
        over="ignore"
    ):  # the arithmetic is modulo 2**64; numpy warns of that for scalars
        for key in keys:
            state = _mix(state + (np.asarray(key).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return state


def uniform(*keys: np.ndarray | int) -> np.ndarray:
    """Numbers in [0, 1) from the keys, float64 with 53 random bits."""
    return (bits(*keys) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
