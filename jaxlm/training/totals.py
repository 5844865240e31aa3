"""Sums over one pass through a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.data.loader import Dataset, evaluation_batches
from jaxlm.training import batches


def totals(
    score: Callable[[dict[str, jax.Array]], Any],
    dataset: Dataset,
    batch_size: int,
    mesh: Mesh,
    limit: int | None = None,
) -> Any:
    """The sums that `score` returns for each batch, added in float64 over one pass (at most `limit` batches)."""
    rows = batches.local_rows(batch_size, mesh)
    total = None
    for local in evaluation_batches(dataset, batch_size, rows, limit):
        batch = batches.to_devices(local, mesh, batch_size, rows)
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(score(batch)))
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return total
