import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.data import counter


def splitmix64(seed, count):
    """The reference generator (Vigna's public-domain C code) in plain integers."""
    mask = 2**64 - 1
    numbers = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_one_key_counts_along_splitmix64():
    # the first outputs for seed 0 that are published with the generator
    assert splitmix64(0, 2) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert counter.bits(np.arange(50)).tolist() == splitmix64(0, 50)
    assert counter.bits(7, np.arange(50)).tolist() == splitmix64(int(counter.bits(7)), 50)


def test_keys_are_broadcast_elementwise():
    seed, index = 3, np.arange(4)[:, None]
    table = counter.bits(seed, index, np.arange(5))
    assert table.shape == (4, 5)
    assert table[2, 3] == counter.bits(3, 2, 3)
    assert len(set(table.flatten().tolist())) == 20
    assert counter.bits(1, 2) != counter.bits(2, 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_uniform_numbers_are_uniform_and_uncorrelated_along_every_key(axis):
    shape = [20, 20, 20]
    shape[axis] = 500
    keys = np.ogrid[tuple(slice(n) for n in shape)]
    u = counter.uniform(*keys)
    n = u.size
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    # chi-square over 1000 bins: 999 degrees of freedom, standard deviation 44.7
    counts = np.bincount((u * 1000).astype(int).ravel(), minlength=1000)
    assert abs(((counts - n / 1000) ** 2 / (n / 1000)).sum() - 999) < 4 * 44.7
    # neighbours along the key, one and two apart, and the pairs fill the square evenly
    moved = np.moveaxis(u, axis, 0)
    for lag in (1, 2):
        a, b = moved[:-lag].ravel() - 0.5, moved[lag:].ravel() - 0.5
        assert abs((a * b).mean() * 12) < 4 / np.sqrt(a.size)
    cells = np.bincount(((moved[:-1] * 16).astype(int) * 16 + (moved[1:] * 16).astype(int)).ravel())
    expected = moved[:-1].size / 256
    assert abs(((cells - expected) ** 2 / expected).sum() - 255) < 4 * np.sqrt(2 * 255)


def test_every_bit_of_a_key_changes_half_of_the_result():
    base = counter.bits(np.arange(2000), 5)
    for bit in range(0, 40, 3):
        changed = counter.bits(np.arange(2000), 5 ^ (1 << bit)) ^ base
        share = np.unpackbits(changed.view(np.uint8)).mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(2000 * 64)


@given(size=st.integers(1, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 99))
def test_permute_is_a_permutation(size, seed, epoch):
    assert sorted(counter.permute(np.arange(size), size, seed, epoch)) == list(range(size))


@pytest.mark.parametrize("size", [2, 3, 5, 10, 17])
def test_permutations_are_uniform(size):
    draws = 2000
    permuted = counter.permute(np.arange(size), size, 5, np.arange(draws)[:, None])
    assert permuted.shape == (draws, size)
    table = np.zeros((size, size))
    for index in range(size):
        table[index] = np.bincount(permuted[:, index], minlength=size)
    freedom = (size - 1) ** 2
    chi_square = ((table - draws / size) ** 2 / (draws / size)).sum()
    # 4 standard deviations, and more where the distribution is far from normal
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom) + 8


def test_adjacent_indices_are_separated():
    size = 1000
    permuted = counter.permute(np.arange(size), size, 5, np.arange(50)[:, None])
    near = (np.abs(np.diff(permuted, axis=1)) == 1).mean()
    assert near < 0.004  # 0.002 for random orders
    ranks = permuted / size - 0.5
    assert abs((ranks[:, 1:] * ranks[:, :-1]).mean() * 12) < 4 / np.sqrt(50 * 999) + 1 / size


def test_a_huge_range_is_permuted_without_being_built():
    permuted = counter.permute(np.arange(1000), 10**15, 1, 2)
    assert len(set(permuted.tolist())) == 1000
    assert permuted.max() > 9 * 10**14
