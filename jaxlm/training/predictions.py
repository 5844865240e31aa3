"""Predictions for records and diagnostics of rows, on any number of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.data.loader import (
    Batch,
    Dataset,
    evaluation_batches,
    evaluation_indices,
    with_valid,
)
from jaxlm.data.records import Records
from jaxlm.tasks.task import Context, Task
from jaxlm.training import batches

Run = Callable[[Any, dict[str, jax.Array], jax.Array], Any]


def compile_predict(task: Task, mesh: Mesh) -> Run:
    """`task.predict`, jitted; its results are on every process."""
    return jax.jit(task.predict, out_shardings=NamedSharding(mesh, P()))


def predict(
    task: Task,
    run: Run,
    params: Any,
    rows: Dataset,
    records: Records,
    *,
    batch_size: int,
    mesh: Mesh,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[list[int], list[dict[str, Any]]]:
    """The indices of the predicted records, ascending, and the prediction for each.

    With `limit`, records are skipped unless all of their rows have been read. Without it, rows of similar length are
    predicted together if the task says which arrays are `padded`.

    Args:
        task: a task that makes predictions.
        run: from `compile_predict`.
        params: on the mesh.
        rows: from `task.rows`.
        records: the records that the rows are made from.
        batch_size: rows per batch, over all devices.
        mesh: the mesh that is set.
        limit: maximum number of batches, which are a fixed random sample; None: all.
        seed: of the random keys.
    """
    outputs = _outputs(
        lambda batch, step: run(params, batch, jax.random.fold_in(jax.random.key(seed), step)),
        rows,
        batch_size=batch_size,
        mesh=mesh,
        limit=limit,
        padded=task.padded if limit is None else (),
    )
    owners = _owners(rows)
    members: dict[int, list[int]] = {}
    for index, owner in enumerate(owners):
        members.setdefault(int(owner), []).append(index)
    whole = [i for i in sorted(members) if all(m in outputs for m in members[i])]
    return whole, [task.read([outputs[m] for m in members[i]], records.record(i)) for i in whole]


def score(
    task: Task, run: Run, params: Any, rows: Dataset, records: Records, **options: Any
) -> dict[str, float]:
    """Metrics of the predictions; `options` are those of `predict`."""
    indices, predictions = predict(task, run, params, rows, records, **options)
    return task.score(predictions, records.take(indices))


def compile_analyse(task: Task, mesh: Mesh) -> Callable[[Any, dict, Context], Any]:
    """`task.analyse`, jitted; its results are on every process."""
    return jax.jit(task.analyse, out_shardings=NamedSharding(mesh, P()))


def diagnose(
    task: Task,
    run: Callable[[Any, dict, Context], Any],
    params: Any,
    rows: Dataset,
    context: Context,
    metrics: dict[str, float],
    *,
    batch_size: int,
    mesh: Mesh,
) -> dict[str, float]:
    """The task's diagnostics.

    Args:
        task: a task that has any.
        run: from `compile_analyse`.
        params: on the mesh.
        rows: from `task.rows`.
        context: of an evaluation.
        metrics: of the evaluation on all rows.
        batch_size: rows per batch, over all devices.
        mesh: the mesh that is set.
    """
    outputs = _outputs(
        lambda batch, step: run(
            params, batch, dataclasses.replace(context, key=jax.random.fold_in(context.key, step))
        ),
        rows,
        batch_size=batch_size,
        mesh=mesh,
        limit=-(-task.analysed_rows(rows) // batch_size),
    )
    return task.diagnose([outputs[i] for i in sorted(outputs)], metrics)


def _outputs(
    run: Callable[[dict[str, jax.Array], int], Any],
    rows: Dataset,
    *,
    batch_size: int,
    mesh: Mesh,
    limit: int | None,
    padded: Sequence[str] = (),
) -> dict[int, dict[str, np.ndarray]]:
    """The results of `run` (batch, index of the batch) by row."""
    local = batches.local_rows(batch_size, mesh)
    lengths = _lengths(rows) if padded else None
    outputs: dict[int, dict[str, np.ndarray]] = {}
    if lengths is None:
        batches_of_rows = evaluation_batches(rows, batch_size, local, limit)
        indices = evaluation_indices(len(rows), batch_size, limit)
    else:
        # the longest first: what needs most memory comes at once
        order = np.argsort(-lengths, kind="stable")
        indices = ((order[i], valid) for i, valid in evaluation_indices(len(rows), batch_size))
        batches_of_rows = _by_length(rows, order, batch_size, local, lengths, padded)
    for step, (batch, (own, valid)) in enumerate(zip(batches_of_rows, indices)):
        placed = batches.to_devices(batch, mesh, batch_size, local)
        out = jax.device_get(run(placed, step))
        for slot in np.flatnonzero(valid):
            outputs[int(own[slot])] = jax.tree.map(lambda x, slot=slot: np.asarray(x[slot]), out)
    return outputs


def _lengths(rows: Dataset) -> np.ndarray | None:
    """The number of tokens of each row up to its padding; None for rows that are not in memory."""
    segments = getattr(rows, "arrays", {}).get("segment_ids")
    if segments is None or not len(segments):
        return None
    return segments.shape[1] - (segments[:, ::-1] > 0).argmax(1)


def _by_length(
    rows: Dataset,
    order: np.ndarray,
    batch_size: int,
    local: np.ndarray,
    lengths: np.ndarray,
    padded: Sequence[str],
) -> Iterator[Batch]:
    """As `loader.evaluation_batches`, in another order and with less padding."""
    for indices, valid in evaluation_indices(len(rows), batch_size):
        chosen = order[indices]
        size = _size(int(lengths[chosen].max()))
        batch = rows.rows(chosen[local], np.zeros(len(local), np.int64))
        cut = {name: x[:, :size] if name in padded else x for name, x in batch.items()}
        yield with_valid(cut, valid[local])


def _size(length: int) -> int:
    """The number of tokens of a batch whose longest row has `length`: there are few, since each is compiled once."""
    if jax.default_backend() != "cpu":
        # a multiple of what attention kernels work on
        return -(-length // 128) * 128
    sizes = [size for power in range(4, 24) for size in (2**power, 3 * 2 ** (power - 1))]
    return next(size for size in sizes if size >= length)


def _owners(rows: Dataset) -> np.ndarray:
    """The index of the record of each row: the array "record", or by default the index of the row."""
    default = np.arange(len(rows))
    return getattr(rows, "arrays", {}).get("record", default)
