import collections
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.data import counter, ragged
from jaxlm.data.ragged import Ragged


def test_ranges_owners_and_offsets():
    owners, numbers = ragged.ranges(np.array([5, 9, 2]), np.array([2, 0, 3]))
    assert owners.tolist() == [0, 0, 2, 2, 2]
    assert numbers.tolist() == [5, 6, 2, 3, 4]
    owners, offsets = ragged.owners_and_offsets(np.array([0, 2, 1]))
    assert (owners.tolist(), offsets.tolist()) == ([1, 1, 2], [0, 1, 0])


def test_framed_adds_tokens_around_every_sequence_even_an_empty_one():
    sequences = Ragged(np.array([7, 8, 9]), np.array([2, 0, 1]))
    got = ragged.framed(sequences, prefix=np.array([1, 2, 3]), suffix=4)
    assert [part.tolist() for part in got.split()] == [[1, 7, 8, 4], [2, 4], [3, 9, 4]]
    assert got.starts.tolist() == [0, 4, 6]


@given(st.lists(st.integers(0, 12), max_size=6), st.integers(0, 99), st.data())
def test_choose_takes_the_requested_number_of_each(sizes, seed, data):
    counts = np.array([data.draw(st.integers(0, size)) for size in sizes], np.int64)
    keys = counter.bits(seed, np.arange(len(sizes)))
    chosen = ragged.choose(np.array(sizes, np.int64), counts, keys)
    assert len(chosen) == sum(sizes)
    parts = np.split(chosen, np.cumsum(sizes)[:-1]) if sizes else []
    assert [part.sum() for part in parts] == counts.tolist()


def test_every_subset_and_every_sum_is_equally_likely():
    keys = counter.bits(0, np.arange(60_000))
    many = np.full(len(keys), 5)
    chosen = ragged.choose(many, np.full(len(keys), 2), keys).reshape(-1, 5)
    sums = ragged.compose(many, np.full(len(keys), 3), keys).reshape(-1, 3)
    assert (sums >= 1).all()
    assert (sums.sum(axis=1) == 5).all()
    subsets = [(0.0,) * 5 for _ in ()] + list(itertools.combinations(range(5), 2))
    counts = collections.Counter(tuple(np.flatnonzero(row)) for row in chosen)
    for found, kinds in ((counts, len(subsets)), (collections.Counter(map(tuple, sums)), 6)):
        assert len(found) == kinds
        expected = len(keys) / kinds
        chi_square = sum((n - expected) ** 2 / expected for n in found.values())
        assert chi_square < kinds + 5 * np.sqrt(2 * kinds)
