"""Membership inference, canaries and pairs as functions of numbers and texts."""

import json
import math

import numpy as np
import pytest

from jaxlm.audit import attacks, canaries, pairs
from jaxlm.cli.main import main


def test_the_area_is_the_fraction_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 12, 40) + 1.0, rng.integers(0, 12, 70).astype(float)
    by_hand = np.mean([(m > o) + 0.5 * (m == o) for m in members for o in others])
    assert attacks.auc(members, others) == pytest.approx(by_hand)
    assert attacks.auc(others, members) == pytest.approx(1 - by_hand)


def test_true_positives_at_a_rate_of_false_ones():
    others = np.arange(200.0)
    # above 197.0 are two of two hundred
    members = np.array([0.0, 197.0, 197.5, 300.0])
    assert attacks.true_positives(members, others) == 0.5
    # of less than a hundred none may be above
    assert attacks.true_positives(members, others[:50]) == 0.75
    best = max((members > t).mean() for t in np.r_[others, members] if (others > t).mean() <= 0.01)
    assert attacks.true_positives(members, others) == best


def test_an_attack_has_intervals_and_a_curve():
    rng = np.random.default_rng(1)
    found = attacks.attack(rng.normal(1, 1, 300), rng.normal(0, 1, 300), samples=200, seed=0)
    # the exact area is that of a standard normal below 1 / sqrt(2)
    assert found.auc_interval[0] < 0.7602 < found.auc_interval[1]
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]
    x, y = np.array(found.curve).T
    assert (np.diff(y) >= 0).all()
    assert np.trapezoid(y, x) == pytest.approx(found.auc, abs=0.01)


def test_exposure_by_construction():
    others = np.arange(1024.0)
    assert canaries.exposure(0.0, others, 1024) == 10
    assert canaries.exposure(511.0, others, 1024) == 1
    assert canaries.exposure(1023.0, others, 1024) == 0
    # of a sample no more can be known than that nothing in it is more probable
    assert canaries.exposure(-1.0, others[1:], 10**6) == 10


def test_canaries_are_planted_as_often_as_they_say(tmp_path):
    made = canaries.make("pin {} {}", "0123456789", (1, 3), seed=0)
    assert made.space == 100
    assert len(set(made.texts)) == 2
    lines = canaries.plant([f"line {i}" for i in range(20)], made, seed=1)
    assert [lines.count(t) for t in made.texts] == [1, 3]
    assert [x for x in lines if x.startswith("line")] == [f"line {i}" for i in range(20)]
    made.save(tmp_path / "c.json")
    assert canaries.load(tmp_path / "c.json") == made
    every = made.others(1000, 0)
    assert len(set(every)) == 100
    assert set(made.texts) < set(every)
    assert len(made.others(50, 0)) == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ('{"template": "a"}', "lacks values"),
        ('{"template": "a", "values": ["0", "1"], "chosen": [[]], "repeats": [1]}', "no place"),
        (
            '{"template": "a {}", "values": ["0", "1"], "chosen": [["2"]], "repeats": [1]}',
            "not 1 of the values",
        ),
        (
            '{"template": "a {}", "values": ["0", "1"], "chosen": [["1"]], "repeats": []}',
            "one number of repetitions",
        ),
        (
            '{"template": "a {}", "values": ["0", "1"], "chosen": [["1"]], "repeats": ["x"]}',
            "c.json: not a",
        ),
        (
            '{"template": "a {}", "values": ["0", "0", "1"], "chosen": [["1"]], "repeats": [1]}',
            "all of them different",
        ),
    ],
)
def test_bad_files_of_canaries(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        canaries.load(tmp_path / "c.json")


def test_too_many_canaries():
    with pytest.raises(ValueError, match="less than 3 different canaries"):
        canaries.make("{}", "01", (1, 1, 1), seed=0)
    # a value that is there twice would make the space larger than it is, and the exposure too
    with pytest.raises(ValueError, match="all of them different"):
        canaries.make("{} {}", "001", (1,), seed=0)


def test_a_text_that_canaries_cannot_be_planted_in_is_told_before_a_file_is_written(
    tmp_path, capsys
):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    for name, message in (("bad.txt", "not UTF-8 text"), ("none.txt", "No such file")):
        args = [tmp_path / "c.json", "--into", tmp_path / name, "--out", tmp_path / "o.txt"]
        assert main(["audit", "canaries", *map(str, args)]) == 2
        assert f"{name}: cannot be read: {message}" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_pairs_of_templates_and_of_a_table(tmp_path):
    found = {
        "templates": ["{group} is a {attribute}", "{group} sleeps"],
        "groups": {"w": ["she", "my aunt"], "m": ["he", "my uncle"]},
        "attributes": ["nurse", "pilot"],
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(found))
    made = pairs.load(path)
    assert len(made) == 6
    assert pairs.Pair("my aunt is a pilot", "my uncle is a pilot", "w / m") in made
    path = tmp_path / "p.csv"
    path.write_text("first,second,about\na b,a c,x\nd,e,y\n")
    assert pairs.load(path) == [("a b", "a c", "x"), ("d", "e", "y")]
    path.write_text("first,second\na,b\n")
    assert pairs.load(path) == [("a", "b", "all")]
    for change, message in (
        ({"groups": {"w": ["she"]}}, "at least two lists of words"),
        ({"groups": {"w": ["she"], "m": ["he", "him"]}}, "same number of words, not w 1, m 2"),
        ({"templates": ["sleeps"]}, "has no place {group}"),
        ({"templates": []}, "makes no pair"),
        ({"templates": [3]}, "needs a list of texts"),
        ({"groups": {"w": "she", "m": "her"}}, "at least two lists of words"),
        ({"attributes": "nurse"}, "`attributes` must be a list of words"),
        ({"attributes": [1]}, "`attributes` must be a list of words"),
    ):
        with pytest.raises(ValueError, match=message):
            pairs.of_templates({**found, **change}, "p")


def test_intervals_of_a_mean():
    low, high = attacks.mean_interval(np.arange(100.0), samples=300, seed=0)
    assert low < 49.5 < high
    assert math.isclose(high - low, 2 * 1.96 * 2.88, rel_tol=0.2)
