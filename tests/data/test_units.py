"""Units of privacy, and batches of them by Poisson sampling."""

import numpy as np

from jaxlm.data.rows import ArrayRows
from jaxlm.data.units import PoissonBatchAt, Units

OWNERS = np.array([5, 2, 5, 9, 5, 2, 5])


def units(most=2):
    return Units.of(ArrayRows({"row": np.arange(7), "owner": OWNERS}), OWNERS, most, seed=3)


def test_units_are_the_rows_of_an_owner():
    every = units(most=9)
    assert len(every) == 3
    assert every.most == 4
    batch = every.rows(np.arange(3), np.zeros(3, int))
    assert batch["row"].shape == (3, 4)
    found = [sorted(r[e > 0].tolist()) for r, e in zip(batch["row"], batch["exists"])]
    assert found == [[1, 5], [0, 2, 4, 6], [3]]
    # filling rows are the unit's own, never another's
    assert [set(o.tolist()) for o in batch["owner"]] == [{2}, {5}, {9}]


def test_of_a_large_unit_rows_are_drawn_anew():
    seen = set()
    for epoch in range(40):
        batch = units().rows(np.array([1]), np.array([epoch]))
        pair = frozenset(batch["row"][0].tolist())
        assert len(pair) == 2
        seen |= {pair}
    assert len(seen) == 6


def poisson(probability=0.3, count=50, rows=None, start=0, slots=24, seed=1):
    dataset = ArrayRows({"row": np.arange(count)})
    every = Units.of(dataset, dataset.owners(), 1, 0)
    return PoissonBatchAt(every, probability, slots, 4, seed, rows, start)


def members(batch):
    return set(batch["row"][batch["valid"] > 0, 0].tolist())


def test_each_unit_is_drawn_by_itself():
    draw = poisson(slots=52)
    drawn = np.array([[i in members(draw(step)) for i in range(50)] for step in range(300)])
    # the standard error of a unit's share is 2.6 %, of the mean share 0.4 %
    assert abs(drawn.mean() - 0.3) < 0.015
    assert np.abs(drawn.mean(0) - 0.3).max() < 0.1
    # sizes vary as those of a binomial distribution
    assert abs(drawn.sum(1).var() / (50 * 0.3 * 0.7) - 1) < 0.3
    # one unit less changes nothing for the others
    less = poisson(slots=52, count=49)
    assert all(members(draw(step)) - {49} == members(less(step)) for step in range(50))


def test_slots_fill_microbatch_by_microbatch_and_parts_are_those_of_the_whole():
    whole = poisson()(3)
    count = int(whole["valid"].sum())
    filled = whole["valid"].reshape(4, 6).T.ravel()
    np.testing.assert_array_equal(filled, np.arange(24) < count)
    mine = np.array([1, 2, 17])
    part = poisson(rows=mine, start=2)(1)
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][mine])
    assert members(poisson(seed=2)(3)) != members(whole)


def test_more_units_than_slots_are_left_out_at_random():
    full = poisson(probability=1.0, slots=8)
    counts = sum(np.bincount(full(i)["row"][:, 0], minlength=50) for i in range(200))
    assert full(0)["valid"].all()
    assert (counts > 10).all()
