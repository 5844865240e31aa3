"""Evaluation: the metrics of a checkpoint on the validation data of its run, or on other data in the same format."""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.run.restore import Restored
from jaxlm.tasks import task as tasks
from jaxlm.training import predictions
from jaxlm.training.totals import totals


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an evaluation."""

    # step of the checkpoint
    step: int
    examples: int
    metrics: dict[str, float]
    # the metrics as tables, if the task has more to show than a line
    rendered: str | None
    # how the scores are computed, see `Task.signatures`
    signatures: dict[str, str] = dataclasses.field(default_factory=dict)


def evaluate(run: Restored) -> Result:
    """The metrics of a checkpoint over all examples: from sums over batches and, if the task scores predictions, from
    those."""
    task, mesh = run.task, run.mesh
    with jax.set_mesh(mesh):
        score = jax.jit(
            lambda params, batch, context: tasks.loss_sums(task.loss(params, batch, context)),
            out_shardings=NamedSharding(mesh, P()),
        )
        size = run.config.batch_size
        sums = totals(lambda batch: score(run.params, batch, run.context), run.rows, size, mesh)
        metrics = tasks.metrics(task, sums)
        if task.scores():
            predict = predictions.compile_predict(task, mesh)
            metrics |= predictions.score(
                task, predict, run.params, run.rows, run.data, batch_size=size, mesh=mesh
            )
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
    lines = [task.render(sums["sums"]), task.verdict(metrics)]
    return Result(
        step=run.step,
        examples=len(run.rows),
        metrics=metrics,
        rendered="\n".join(line for line in lines if line) or None,
        signatures=task.signatures(),
    )
