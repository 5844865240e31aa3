"""Calibration: whether of the predictions with probability p a fraction p is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15


class Bins(NamedTuple):
    """Predictions by their probability, in intervals of equal width from 0 to 1."""

    # number of predictions, their mean probability and the fraction that is right [bins]; 0 where there are none
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance between probability and accuracy of the bins, by their counts.

        Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; Guo et al. 2017
        (1706.04599), equation 3.
        """
        gaps = np.abs(self.confidence - self.accuracy)
        return float((self.counts * gaps).sum() / max(self.counts.sum(), 1))


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> Bins:
    """Bins of predictions.

    Args:
        probability: of the predicted class [N].
        right: whether each prediction is right [N].
        bins: number of intervals; each includes its upper end.
    """
    index = np.clip(np.ceil(np.asarray(probability) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    share = lambda x: np.bincount(index, np.asarray(x, float), bins) / np.maximum(counts, 1)
    return Bins(counts, share(probability), share(right))
