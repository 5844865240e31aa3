"""Membership inference: how well a score tells texts that a model was trained on from others.

The score is the loss, negated (Yeom et al. 2018, 1709.01604), or the logarithm of a likelihood ratio: the loss of a
reference model that did not see the texts minus that of the model (Mireshghallah et al. 2022, 2203.03929). Judged by
the area under the ROC curve, and by the true-positive rate at a low false-positive rate, because an attack that is
right about a few people is worse for them than one that is a little right about all (Carlini et al. 2022, 2112.03570).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.run import bootstrap

# false-positive rate at which the true-positive rate is given
RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Attack:
    """How well an attack works, with 95 % intervals by resampling members and others."""

    members: int
    others: int
    # 0.5: as good as a coin
    auc: float
    auc_interval: tuple[float, float]
    # as good as a coin: the rate itself
    true_positives: float
    true_positives_interval: tuple[float, float]
    # points of the ROC curve: false and true positives
    curve: tuple[tuple[float, float], ...]


def attack(members: np.ndarray, others: np.ndarray, *, samples: int, seed: int) -> Attack:
    """The attack that says "member" above a threshold of the score.

    Args:
        members: scores of texts that the model was trained on [N].
        others: scores of texts from the same source that it was not trained on [M].
        samples: of the bootstrap.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    draw = lambda x: x[rng.integers(len(x), size=len(x))]
    drawn = [(draw(members), draw(others)) for _ in range(samples)]
    interval = lambda f: _interval([f(a, b) for a, b in drawn])
    return Attack(
        len(members),
        len(others),
        auc(members, others),
        interval(auc),
        true_positives(members, others),
        interval(true_positives),
        roc(members, others),
    )


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The probability that a member has a higher score than another text; ties count half (Mann and Whitney 1947)."""
    sorted_others = np.sort(others)
    below = np.searchsorted(sorted_others, members, side="left")
    up_to = np.searchsorted(sorted_others, members, side="right")
    return float((below + up_to).mean() / 2 / len(others))


def true_positives(members: np.ndarray, others: np.ndarray, rate: float = RATE) -> float:
    """The fraction of members above the lowest threshold that at most a fraction `rate` of the others is above."""
    allowed = int(rate * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return float((members > threshold).mean())


def roc(
    members: np.ndarray, others: np.ndarray, points: int = 101
) -> tuple[tuple[float, float], ...]:
    """True-positive rates at evenly spaced false-positive rates."""
    rates = np.linspace(0, 1, points)
    return tuple((float(r), true_positives(members, others, r) if r < 1 else 1.0) for r in rates)


def _interval(values: list[float]) -> tuple[float, float]:
    if not values:
        return (float("nan"), float("nan"))
    return bootstrap.interval(values)


def mean_interval(values: np.ndarray, *, samples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of a mean, by resampling."""
    drawn = bootstrap.draws(len(values), samples, seed)
    return _interval([float(values[rows].mean()) for rows in drawn])
