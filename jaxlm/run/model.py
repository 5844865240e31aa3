"""A model with its task, as `evaluate`, `predict` and `report` use it: of a run or of a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from jaxlm.data.loader import Dataset
from jaxlm.tasks import Task
from jaxlm.tasks.task import Context, Purpose


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters of a checkpoint and its task."""

    folder: pathlib.Path
    config: Any
    # 0: not a run
    step: int
    task: Task
    params: Any
    # for the task's loss in evaluation: a fixed key, the reference and the task state of the checkpoint
    context: Context
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class Restored(Model):
    """A model with rows of data for its task."""

    rows: Dataset
    # the records or text that the rows are made from
    data: Any


@dataclasses.dataclass(frozen=True)
class Found:
    """A model whose parameters are not loaded yet: a mistake in the data is told before that takes its time."""

    folder: pathlib.Path
    config: Any
    task: Task
    mesh: Mesh
    load: Callable[[Purpose], Model]
    # None: not a run
    is_run: bool = True
