"""The loss of a model on each text or record alone."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import sharding
from jaxlm.data.loader import evaluation_batches
from jaxlm.data.records import Records
from jaxlm.run import restore
from jaxlm.run.model import Found, Model


@dataclasses.dataclass(frozen=True)
class Losses:
    """The mean loss of each text (per token) or record, and the data they are of."""

    values: np.ndarray
    # tokens of each text, or weight of each record
    weights: np.ndarray
    data: Any


def losses(found: Found, model: Model, source: str, limit: int) -> Losses:
    """The task's loss on each text or record of a source, in evaluation mode; a random sample of at most `limit`.

    Args:
        found: the model with its task.
        model: its parameters, from `found.load("validation")`.
        source: as in `data.validation`.
        limit: texts or records, at most.

    Raises:
        ValueError: the task's loss or rows are of several examples.
    """
    task, kind = found.task, type(found.task)
    if task.coupled:
        raise ValueError(
            f"{found.folder}: the loss of task {task.name} compares the examples of a batch, so that none has a loss "
            "of its own"
        )
    data = restore.read(found.config.data, (source,), kind.columns(found.config, "validation"))
    if isinstance(data, Records):
        data = kind.select(found.config.task, data, found.config)
        rows = task.rows(data.take(_sample(len(data), limit)), "validation")
    else:
        documents = task.token_documents(data)
        if len(documents) > 1:
            raise ValueError(f"{source}: several sources of text: name a file")
        rows = task.rows(dataclasses.replace(documents[0], apart=True), "validation")
    find = getattr(rows, "owners", None)
    owners = None if find is None else find()
    if owners is None:
        raise ValueError(
            f"{found.folder}: task {task.name} makes rows of several texts, so that none has a loss of its own"
        )
    sums = np.array(_of_rows(model, rows), np.float64)
    totals = np.stack([np.bincount(owners, weights=x) for x in sums])
    kept = totals[:, totals[1] > 0]
    values = kept[0] / kept[1]
    if not len(values):
        raise ValueError(f"{source}: no text has a token to predict")
    if not np.isfinite(values).all():
        raise ValueError(f"{found.folder}: the loss of a text of {source} is not a finite number")
    chosen = np.array(_sample(len(values), limit))
    return Losses(values[chosen], kept[1][chosen], data)


def _of_rows(model: Model, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weighted loss and weight of each row, computed alone."""
    task = model.task

    @functools.partial(jax.jit, donate_argnums=())
    def one_by_one(params, batch, context):
        def one(row):
            with sharding.unconstrained():
                found = task.loss(params, jax.tree.map(lambda x: x[None], row), context)
            return jnp.float32(found.total), jnp.float32(found.weight)

        return jax.lax.map(one, batch)

    parts = []
    with jax.set_mesh(model.mesh):
        for batch in evaluation_batches(rows, min(64, len(rows))):
            found = jax.device_get(one_by_one(model.params, batch, model.context))
            parts.append([x[batch["valid"] > 0] for x in found])
    total, weight = (np.concatenate(x) for x in zip(*parts))
    return total, weight


def _sample(size: int, limit: int) -> list[int]:
    """The same random sample each time."""
    if size <= limit:
        return list(range(size))
    return np.sort(np.random.default_rng(0).choice(size, limit, replace=False)).tolist()
