"""Prediction: applies a run's checkpoint to examples without labels."""

from __future__ import annotations

from typing import Any

import jax

from jaxlm.run.restore import Restored
from jaxlm.training import predictions


def predict(run: Restored) -> list[dict[str, Any]]:
    """The prediction for each record of `run.data`, in order: its "id" (file and row) and the fields from `Task.read`.

    Raises:
        ValueError: the task makes no predictions.
    """
    if not run.task.predicts():
        raise ValueError(f"{run.folder}: task {run.task.name} makes no predictions")
    with jax.set_mesh(run.mesh):
        indices, answers = predictions.predict(
            run.task,
            predictions.compile_predict(run.task, run.mesh),
            run.params,
            run.rows,
            run.data,
            batch_size=run.config.batch_size,
            mesh=run.mesh,
        )
    return [{"id": run.data.ids[i], **answer} for i, answer in zip(indices, answers)]
