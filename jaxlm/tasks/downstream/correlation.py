"""Correlations of two lists of numbers, of which predictions are one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float] | np.ndarray


def pearson(x: Numbers, y: Numbers) -> float:
    """The linear correlation, from -1 to 1; NaN if one of the lists is constant or has fewer than two numbers."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    # each is divided by its norm first: the product of large numbers may overflow
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1, 1))


def spearman(x: Numbers, y: Numbers) -> float:
    """The linear correlation of the ranks; equal numbers have the mean of their ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Numbers) -> np.ndarray:
    """The rank of each number, from 1; of equal numbers the mean of the ranks that they take up [n]."""
    _, group, size = np.unique(np.asarray(x, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    return (last - (size - 1) / 2)[group]
