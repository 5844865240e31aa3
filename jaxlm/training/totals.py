"""Sums over one pass of a data set."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.data.loader import Dataset, evaluation_batches
from jaxlm.training import batches


def totals(
    score: Callable[[dict[str, jax.Array]], dict[str, jax.Array]],
    dataset: Dataset,
    batch_size: int,
    mesh: Mesh,
    limit: int | None = None,
) -> dict[str, np.ndarray]:
    """The sums that `score` gives for each batch, added up over one pass of the data (at most `limit` batches)."""
    rows = batches.local_rows(batch_size, mesh)
    sums: dict[str, np.ndarray] = {}
    for local in evaluation_batches(dataset, batch_size, rows, limit):
        batch = batches.to_devices(local, mesh, batch_size, rows)
        for name, value in jax.device_get(score(batch)).items():
            sums[name] = sums.get(name, 0) + np.asarray(value, np.float64)
    return sums
