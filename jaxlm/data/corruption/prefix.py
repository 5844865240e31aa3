"""Prefix language modelling: how much of a text is given."""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter


def prefix_lengths(lengths: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Tokens of each text that are its prefix [p]: uniformly 0 to length - 1, so that one is left to predict.

    Raffel et al. 2020 (1910.10683, section 3.2.3).
    """
    return np.floor(counter.uniform(keys) * lengths).astype(np.int64)
