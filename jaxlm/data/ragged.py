"""Sequences of different lengths, end to end in one flat array: how everything here works on many of them at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxlm.data import counter


class Ragged(NamedTuple):
    """Sequences end to end."""

    # [t]
    values: np.ndarray
    # of each sequence [p], int64; they sum to t
    lengths: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """Exclusive end of each sequence in `values` [p]."""
        return np.cumsum(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """Where each sequence begins in `values` [p]."""
        return self.ends - self.lengths

    def split(self) -> list[np.ndarray]:
        """The sequences as a list."""
        return np.split(self.values, self.ends[:-1]) if len(self.lengths) else []


def ranges(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers of all ranges [start, start + count) end to end, each with the index of its range."""
    counts = np.maximum(counts, 0)
    owners = np.repeat(np.arange(len(starts)), counts)
    before = np.cumsum(counts) - counts
    return owners, np.arange(len(owners)) - before[owners] + starts[owners]


def owners_and_offsets(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every element of sequences of these lengths, the sequence it belongs to and its offset within it."""
    return ranges(np.zeros(len(lengths), np.int64), lengths)


def insert(
    sequences: Ragged, at: np.ndarray, values: np.ndarray | int, owners: np.ndarray
) -> Ragged:
    """The sequences with `values` inserted before the flat offsets `at`.

    Args:
        sequences: what to insert into.
        at: flat offsets [k], ascending; the end of a sequence is the start of the next, so `owners` decides.
        values: one for each offset, or one for all.
        owners: the sequence that each value is inserted into [k], ascending.
    """
    added = np.bincount(owners, minlength=len(sequences.lengths))
    return Ragged(np.insert(sequences.values, at, values), sequences.lengths + added)


def framed(
    sequences: Ragged,
    prefix: np.ndarray | int | None = None,
    suffix: np.ndarray | int | None = None,
) -> Ragged:
    """Each sequence between a prefix and a suffix token, as far as these are given (one for all, or one for each)."""
    everyone = np.arange(len(sequences.lengths))
    for value, before in ((prefix, True), (suffix, False)):
        if value is not None:
            at = sequences.starts if before else sequences.ends
            sequences = insert(sequences, at, value, everyone)
    return sequences


def choose(sizes: np.ndarray, counts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """A random subset of `counts[p]` of the `sizes[p]` elements of each sequence, every one equally likely.

    Args:
        sizes: elements of each sequence [p].
        counts: how many of them to choose [p], at most `sizes`.
        keys: random key of each sequence [p] uint64.

    Returns:
        Whether an element is chosen [sum of sizes] bool.
    """
    owner, offset = owners_and_offsets(sizes)
    assert len(sizes) <= 1 << 20 and (len(sizes) == 0 or sizes.max() <= 1 << 16), "too many at once"
    # sequence, noise, offset in one number: sorting gives the same order on every machine, ties or not
    noise = counter.bits(keys[owner], offset) >> np.uint64(36)
    code = (owner.astype(np.uint64) << np.uint64(44)) | (noise << np.uint64(16))
    code = np.sort(code | offset.astype(np.uint64))
    # the order is by sequence first, so that offsets are ranks
    first = offset < counts[owner]
    chosen = np.zeros(len(owner), bool)
    starts = np.cumsum(sizes) - sizes
    chosen[starts[owner[first]] + (code[first] & np.uint64(0xFFFF)).astype(np.int64)] = True
    return chosen


def compose(totals: np.ndarray, parts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Each total as a sum of `parts[p]` whole numbers of at least 1, all such sums equally likely.

    Args:
        totals: [p], at least `parts`.
        parts: [p], at least 1.
        keys: random key of each total [p] uint64.

    Returns:
        The summands end to end [sum of parts] int64.
    """
    ends = np.cumsum(totals)
    between = totals - 1
    owner, offset = owners_and_offsets(between)
    last = np.zeros(ends[-1] if len(ends) else 0, bool)
    last[ends - 1] = True
    last[(ends - totals)[owner] + offset] = choose(between, parts - 1, keys)
    return np.diff(np.flatnonzero(last), prepend=-1)
