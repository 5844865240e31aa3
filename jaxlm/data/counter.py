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


def permute(indices: np.ndarray, size: int, *keys: np.ndarray | int) -> np.ndarray:
    """The images of `indices` under a permutation of range(size) chosen by the keys; int64, in constant memory.

    A Feistel network (Luby and Rackoff 1988) over the next power of two, repeated while it leads outside of the range
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"), which is at most once on average.
    """
    width = np.uint64((size - 1).bit_length())
    half = width // np.uint64(2)
    high, low = (np.uint64((1 << int(n)) - 1) for n in (width - half, half))
    shape = np.broadcast_shapes(np.shape(indices), *map(np.shape, keys))
    turns = np.arange(8).reshape(8, *[1] * len(shape))
    seeds = np.broadcast_to(bits(bits(*keys), turns), (8, *shape))

    def scramble(x: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        a, b = x >> half, x & low
        for even, odd in zip(seeds[::2], seeds[1::2]):
            a = a ^ (_mix(even + b) & high)
            b = b ^ (_mix(odd + a) & low)
        return (a << half) | b

    result = scramble(np.broadcast_to(np.asarray(indices).astype(np.uint64), shape), seeds)
    while (outside := result >= size).any():
        result[outside] = scramble(result[outside], seeds[:, outside])
    return result.astype(np.int64)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
