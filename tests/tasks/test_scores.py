"""Scores against their definitions, counted example by example, and against scikit-learn."""

import numpy as np
import pytest

from jaxlm.tasks import scores


def confusion(true, predicted, classes):
    out = np.zeros((classes, classes))
    np.add.at(out, (true, predicted), 1)
    return out


@pytest.fixture(params=[0, 1, 2], ids=["few", "skewed", "many"])
def labels(request):
    """True and predicted classes of 300 examples, and the number of classes."""
    rng = np.random.default_rng(request.param)
    classes = (2, 4, 12)[request.param]
    true = rng.choice(classes, 300, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random(300) < 0.6, true, rng.integers(0, classes, 300))
    return true, predicted, classes


def test_scores_of_a_class_are_those_of_its_hits_and_misses(labels):
    true, predicted, classes = labels
    matrix = confusion(*labels)
    for c in range(classes):
        hits = sum(t == c and p == c for t, p in zip(true, predicted))
        false = sum(t != c and p == c for t, p in zip(true, predicted))
        missed = sum(t == c and p != c for t, p in zip(true, predicted))
        precision = hits / (hits + false) if hits + false else 0
        recall = hits / (hits + missed) if hits + missed else 0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        found = scores.precision(matrix)[c], scores.recall(matrix)[c], scores.f1(matrix)[c]
        assert found == pytest.approx((precision, recall, f1))


def test_matthews_is_the_correlation_of_the_indicators(labels):
    true, predicted, classes = labels
    # Gorodkin 2004, equations 3 to 5: covariances of one-hot vectors, summed over the classes
    x, y = np.eye(classes)[true], np.eye(classes)[predicted]
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert scores.matthews(confusion(*labels)) == pytest.approx(expected)
    if classes == 2:
        correlation = np.corrcoef(true, predicted)[0, 1]
        assert scores.matthews(confusion(*labels)) == pytest.approx(correlation)


# class 2 is never predicted, class 3 is never true
MATRIX = np.array([[40, 3, 0, 2], [5, 17, 0, 1], [1, 2, 0, 4], [0, 0, 0, 0]])


def test_scores_agree_with_scikit_learn():
    # scikit-learn 1.9.1; t, p = [np.repeat(x.ravel(), MATRIX.ravel()) for x in np.indices((4, 4))]
    # precision_recall_fscore_support(t, p, zero_division=0), also with average="macro" and "micro"
    found = scores.table(MATRIX, "abcd")
    classes = list(found["classes"].values())
    precision, recall, f1, support = (
        [c[name] for c in classes] for name in ("precision", "recall", "f1", "support")
    )
    assert precision == pytest.approx([0.8695652173913043, 0.7727272727272727, 0.0, 0.0])
    assert recall == pytest.approx([0.8888888888888888, 0.7391304347826086, 0.0, 0.0])
    assert f1 == pytest.approx([0.8791208791208791, 0.7555555555555555, 0.0, 0.0])
    assert support == [45, 23, 7, 0]
    assert list(found["macro"].values()) == pytest.approx(
        [0.4105731225296443, 0.40700483091787437, 0.40866910866910866]
    )
    assert list(found["micro"].values()) == pytest.approx([0.76, 0.76, 0.76])
    assert found["accuracy"] == pytest.approx(0.76)
    # matthews_corrcoef(t, p)
    assert found["matthews"] == pytest.approx(0.5665388353554153)


def test_a_class_that_does_not_occur_changes_nothing():
    larger = np.zeros((5, 5))
    larger[:4, :4] = MATRIX
    assert scores.summary(larger) == pytest.approx(scores.summary(MATRIX))


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.array([[0, 4], [0, 0]])])
def test_undefined_scores_are_zero(matrix):
    assert set(scores.summary(matrix).values()) == {0.0}


def test_predicting_one_class_for_all_has_no_correlation():
    matrix = np.array([[9, 0], [3, 0]])
    assert scores.matthews(matrix) == 0
    assert scores.matthews(np.diag([5, 7, 2])) == pytest.approx(1)
    assert scores.matthews(np.array([[0, 5], [7, 0]])) == pytest.approx(-1)


def test_rendering_shows_every_class_and_count():
    text = scores.render(MATRIX, ["world", "sports", "[tech]", "none"])
    rows = [line.split() for line in text.splitlines()]
    assert ["world", "0.8696", "0.8889", "0.8791", "45"] in rows
    assert ["[tech]", "1", "2", "·", "4"] in rows
    assert ["Matthews", "0.5665"] in rows


def test_rendering_of_many_classes_merges_the_rarest():
    # class i occurs i + 1 times; all of class 0 are taken for class 29
    matrix = np.diag(np.arange(1, 31))
    matrix[0, 0], matrix[0, 29] = 0, 1
    rows = [
        line.split() for line in scores.render(matrix, [f"c{i}" for i in range(30)]).splitlines()
    ]
    assert [row[0] for row in rows if row and row[0].startswith("c") and row[0][1:].isdigit()] == [
        f"c{i}" for i in range(10, 30)
    ]
    others = next(row for row in rows if row[1:3] == ["10", "others"])
    # of the 55 in classes 0 to 9 one went to class 29
    assert others[-2:] == ["1", "54"]
