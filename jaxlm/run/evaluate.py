"""Evaluation: the metrics of a checkpoint on the validation data of its run, or on other data in the same format."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.data.records import Records
from jaxlm.run import bootstrap
from jaxlm.run.model import Restored
from jaxlm.tasks import task as tasks
from jaxlm.training import predictions
from jaxlm.training.totals import totals


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an evaluation."""

    # step of the checkpoint; 0: not a run
    step: int
    examples: int
    metrics: dict[str, float]
    # the metrics as tables, if the task has more to show than a line
    rendered: str | None
    # metric -> its interval, if intervals were asked for and the metric has one
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    # of the bootstrap: fewer than were asked for where the scores of many predictions take long
    samples: int = 0
    # the sums of the loss; the predictions, if they were made, and the indices of their records
    sums: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    indices: list[int] = dataclasses.field(default_factory=list)
    predictions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    # what the metrics mean, see `Task.verdict`
    verdict: str | None = None
    # how the scores are computed, see `Task.signatures`
    signatures: dict[str, str] = dataclasses.field(default_factory=dict)


def _examples(run: Restored) -> int:
    """How many examples are evaluated: of records, which may have several rows, as many as there are, but for a task
    that counts its own, because it leaves some out."""
    counts_own = type(run.task).examples is not tasks.Task.examples
    if isinstance(run.data, Records) and not counts_own:
        return len(run.data)
    return run.task.examples(run.rows)


def evaluate(run: Restored, *, samples: int = 0, seed: int = 0, predict: bool = False) -> Result:
    """The metrics of a checkpoint over all examples: from sums over batches and, if the task scores predictions, from
    those.

    Args:
        run: model and data.
        samples: of the bootstrap that intervals come from; 0: no intervals.
        seed: of the bootstrap.
        predict: also give the predictions, if the task makes any.
    """
    task, mesh = run.task, run.mesh
    indices: list[int] = []
    found: list[dict[str, Any]] = []
    intervals: bootstrap.Intervals = {}
    table: str | None = None
    with jax.set_mesh(mesh):
        score = jax.jit(
            lambda params, batch, context: tasks.loss_sums(task.loss(params, batch, context)),
            out_shardings=NamedSharding(mesh, P()),
        )
        size = run.config.batch_size
        sums = totals(lambda batch: score(run.params, batch, run.context), run.rows, size, mesh)
        metrics = tasks.metrics(task, sums)
        resamples = bool(samples) and task.predicts() and task.resamples()
        if task.scores() or resamples or (predict and task.predicts() and task.predicts_validation):
            run_predict = predictions.compile_predict(task, mesh)
            indices, found = predictions.predict(
                task, run_predict, run.params, run.rows, run.data, batch_size=size, mesh=mesh
            )
        if task.scores():
            scored = run.data.take(indices)
            metrics |= task.score(found, scored)
            table = task.render_predictions(found, scored)
        if resamples:
            samples = bootstrap.affordable(task, samples, len(found))
            drawn = bootstrap.draws(len(found), samples, seed)
            values = task.resample(found, run.data.take(indices), drawn)
            intervals = bootstrap.percentiles(values)
        elif samples:
            intervals = bootstrap.of_sums(run, samples, seed)
        if task.diagnoses():
            metrics |= predictions.diagnose(
                task,
                predictions.compile_analyse(task, mesh),
                run.params,
                run.rows,
                run.context,
                metrics,
                batch_size=size,
                mesh=mesh,
            )
    verdict = task.verdict(metrics)
    lines = [task.render(sums["sums"]), table, verdict]
    return Result(
        step=run.step,
        examples=_examples(run),
        metrics=metrics,
        rendered="\n".join(line for line in lines if line) or None,
        intervals={name: x for name, x in intervals.items() if name in metrics},
        samples=samples,
        sums=sums["sums"],
        indices=indices,
        predictions=found,
        verdict=verdict,
        signatures=task.signatures(),
    )
