import collections

import numpy as np
import pytest

from jaxlm.data.loader import BatchAt
from jaxlm.data.mixture import Mixture


class Named:
    """Rows that contain their own index and the epoch in which they were read."""

    def __init__(self, name, size):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def describe(self, examples):
        return f"{self.size} rows, {examples} read"

    def rows(self, indices, epochs):
        n = len(indices)
        return {
            "name": np.full(n, self.name),
            "index": np.asarray(indices),
            "epoch": np.asarray(epochs),
            "weights": np.ones(n, np.float32),
        }


def mixture(sizes=(10, 30, 60), shares=(0.5, 0.3, 0.2), seed=0):
    parts = tuple(Named(i, size) for i, size in enumerate(sizes))
    return Mixture(parts, tuple("abc"[: len(sizes)]), shares, seed)


def test_an_epoch_has_the_fractions():
    mixed = mixture()
    assert mixed.counts.tolist() == [50, 30, 20]
    rows = mixed.rows(np.arange(100), np.zeros(100, int))
    assert np.bincount(rows["name"]).tolist() == [50, 30, 20]


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.001, 0.001, 0.998)])
def test_every_part_yields_each_row_once_before_any_twice(shares):
    mixed = mixture(shares=shares)
    reads = collections.defaultdict(list)
    for epoch in range(7):
        rows = mixed.rows(np.arange(len(mixed)), np.full(len(mixed), epoch))
        for name, index, own_epoch in zip(rows["name"], rows["index"], rows["epoch"]):
            reads[name].append((own_epoch, index))
    for part in mixed.parts:
        read = reads[part.name]
        assert [e for e, _ in read] == [i // len(part) for i in range(len(read))]
        for epoch in range(read[-1][0]):
            assert sorted(i for e, i in read if e == epoch) == list(range(len(part)))


def test_parts_are_reshuffled_in_their_own_epochs():
    mixed = mixture(sizes=(12,), shares=(1.0,))
    orders = [tuple(mixed.rows(np.arange(12), np.full(12, e))["index"]) for e in range(6)]
    assert len(set(orders)) == 6


def test_batches_have_the_fractions_on_average_and_rows_do_not_depend_on_the_batch():
    mixed = mixture(sizes=(1000, 3000, 6000))
    batches = [BatchAt(mixed, 100, 1)(step)["name"] for step in range(40)]
    shares = np.array([np.bincount(b, minlength=3) for b in batches])
    np.testing.assert_allclose(shares.mean(axis=0), [50, 30, 20], atol=1.5)
    whole = mixed.rows(np.arange(60), np.full(60, 3))
    part = mixed.rows(np.array([59, 2]), np.array([3, 3]))
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][[59, 2]])


def test_the_log_says_how_often_each_part_is_read():
    lines = mixture().describe(1000).splitlines()
    assert lines == [
        "50.0% a: 10 rows, 500 read",
        "30.0% b: 30 rows, 300 read",
        "20.0% c: 60 rows, 200 read",
    ]
