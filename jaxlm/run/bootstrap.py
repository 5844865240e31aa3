"""Confidence intervals of metrics by resampling examples.

The percentile bootstrap (Efron 1979; Efron and Tibshirani 1993, section 13.3): the examples are drawn again with
repetitions, and the interval is between quantiles of the metrics of these samples. It says how much a metric would vary
with other examples from the same source, not with another seed of the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.data.loader import evaluation_batches
from jaxlm.run.model import Restored
from jaxlm.sharding import batch_shards
from jaxlm.tasks import Task
from jaxlm.tasks import task as tasks

Intervals = dict[str, tuple[float, float]]
CONFIDENCE = 0.95
# predictions that are scored in all samples together
_SCORED = 1_000_000


def affordable(task: Task, samples: int, count: int) -> int:
    """The number of samples for `count` examples: fewer of many, at least 100, where each needs the task's `score`."""
    if type(task).resample is not Task.resample:
        return samples
    return min(samples, max(100, _SCORED // max(count, 1)))


def draws(count: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of the examples in each sample [count]; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return (rng.integers(count, size=count) for _ in range(samples))


def percentiles(values: Mapping[str, np.ndarray]) -> Intervals:
    """The interval of each metric, from its values in all samples."""
    return {name: interval(x) for name, x in values.items()}


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The interval that has `CONFIDENCE` of the values, as many below it as above."""
    cut = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [cut, 100 - cut])
    return float(low), float(high)


def of_sums(run: Restored, samples: int, seed: int) -> Intervals:
    """Intervals of the metrics of a task's means, from the sums of each row; a row is one example.

    Nothing for a task whose loss compares the examples of a batch, and nothing but the means of one whose metrics need
    other sums too.
    """
    task = run.task
    if task.coupled:
        return {}
    parts = _row_sums(run)
    if not parts:
        return {}
    names = list(parts)
    # [rows, means, 2]: weighted sum and weight
    table = np.stack([np.stack(parts[name], -1) for name in names], axis=1)
    found: dict[str, list[float]] = {}
    for draw in draws(len(table), samples, seed):
        total, weight = np.moveaxis(table[draw].sum(0), -1, 0)
        means = {n: float(t / w) for n, t, w in zip(names, total, weight) if w > 0}
        for name, value in task.metrics(means, {}).items():
            found.setdefault(name, []).append(value)
    # a mean that is missing in a sample had no weight there
    full = {name: np.array(x) for name, x in found.items() if len(x) == samples}
    return percentiles(full)


def _row_sums(run: Restored) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(weighted sums [rows], weights [rows]) of each mean; empty if the task's metrics need other sums."""
    task, mesh, size = run.task, run.mesh, run.config.batch_size
    shards = batch_shards(mesh)

    def alone(params, row, context):
        """The sums of one row, of which every device has a copy; the first one counts."""
        batch = {name: jnp.repeat(x[None], shards, axis=0) for name, x in row.items()}
        batch["valid"] = batch["valid"] * (jnp.arange(shards) == 0)
        return task.loss(params, batch, context)

    @jax.jit
    def sums(params, batch, context):
        one = lambda row: tasks.loss_sums(alone(params, row, context))["means"]
        return jax.lax.map(one, batch)

    replicated = NamedSharding(mesh, P())
    found: list[Any] = []
    for batch in evaluation_batches(run.rows, size):
        placed = {name: jax.device_put(x, replicated) for name, x in batch.items()}
        if not found:
            row = jax.tree.map(lambda x: x[0], placed)
            if jax.eval_shape(alone, run.params, row, run.context).sums:
                return {}
        found.append(jax.device_get(sums(run.params, placed, run.context)))
    rows = len(run.rows)
    join = lambda *parts: np.concatenate([np.asarray(x, np.float64) for x in parts])[:rows]
    return jax.tree.map(join, *found)
