"""Prefix language modeling: how long the given prefix of a text is."""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter


def prefix_lengths(lengths: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Number of tokens in the prefix of each text [p], uniform from 0 to length - 1: at least one is left to predict.

    After Raffel et al. 2020 (1910.10683, section 3.2.3).
    """
    return np.floor(counter.uniform(keys) * lengths).astype(np.int64)
