"""Restores a checkpoint together with its task and some data, for evaluation and prediction."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.config import CurriculumConfig, FinetuneConfig, MeshConfig, RunConfig
from jaxlm.data import corpora
from jaxlm.data.loader import Dataset
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from
from jaxlm.tasks import Task, task_class
from jaxlm.tasks.task import Context, Purpose, dataset
from jaxlm.training import batches, phases, reference
from jaxlm.training.step import evaluation_context


@dataclasses.dataclass(frozen=True)
class Restored:
    """Parameters of a checkpoint, its task, and rows of data for the task."""

    folder: pathlib.Path
    config: RunConfig
    step: int
    task: Task
    params: Any
    # for the task's loss in evaluation: a fixed key, the reference and the task state of the checkpoint
    context: Context
    mesh: Mesh
    rows: Dataset
    # the records or text that the rows are made from
    data: Any


def restore(
    run_dir: str | os.PathLike,
    *,
    sources: tuple[str, ...] = (),
    purpose: Purpose = "validation",
    step: int | None = None,
    batch_size: int | None = None,
    mesh: MeshConfig | None = None,
    columns: dict[str, str | None] | None = None,
    tasks: Sequence[type[Task]] = (),
) -> Restored:
    """The parameters of a checkpoint on a mesh, and its task over some data.

    Args:
        run_dir: folder of a run.
        sources: as in `data.validation`; default: the run's validation data.
        purpose: "validation", or "predict" for data without labels.
        step: of the checkpoint; default: the newest.
        batch_size: rows per batch; default: that of the run.
        mesh: shape of the mesh; default: all devices replicate the model.
        columns: fields of the run's `data` that differ for these sources, such as {"text_column": "sentence"};
            None: as in the run.
        tasks: custom tasks, in addition to those of jaxlm.

    Raises:
        ValueError: there is no such run or no validation data, or the data does not fit the run.
    """
    folder = pathlib.Path(run_dir)
    config = run_folder.read_config(folder, tasks)
    devices = sharding.make_mesh(mesh or MeshConfig())
    config = dataclasses.replace(
        config,
        batch_size=batch_size or config.batch_size,
        accumulate=1,
        curriculum=CurriculumConfig(),
    )
    batches.check_batch_size(config, devices)
    renamed = {name: column for name, column in (columns or {}).items() if column is not None}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **renamed))
    kind = task_class(config.task, tasks)
    task = kind(config, run_folder.read_tokenizer(folder, kind))
    data = _read(config, kind, sources or config.data.validation, purpose)
    if data is None:
        raise ValueError(f"{folder} has no validation data: name some with --data")
    data = kind.select(config.task, data, config)
    with jax.set_mesh(devices):
        abstract = jax.eval_shape(task.init, jax.random.key(0))
        target = sharding.with_shardings(abstract, sharding.param_shardings(abstract, devices))
        params = store.load_params(folder, target, step=step)
        step = store.describe(folder, step=step)["step"]
        assert step is not None
        context = evaluation_context(
            jnp.int32(step),
            # only a loss compares with it, and it needs the model that the run began with
            None
            if purpose == "predict"
            else _reference(folder, config, task, target, devices, step, tasks),
            _task_state(folder, task, devices, step),
            phases.index_at(config.phases, step),
        )
    return Restored(
        folder=folder,
        config=config,
        step=step,
        task=task,
        params=params,
        context=context,
        mesh=devices,
        rows=dataset(task, data, purpose),
        data=data,
    )


def _reference(
    folder: pathlib.Path,
    config: Any,
    task: Task,
    target: Any,
    mesh: Mesh,
    step: int,
    tasks: Sequence[type[Task]],
) -> Any:
    """The task's reference, derived again from the initial parameters of the run; None if it has none."""
    shapes = reference.abstract(task, target, mesh)
    if shapes is None:
        return None
    load = None
    if isinstance(config, FinetuneConfig) and config.init != "none":
        load = init_from.find(config, tasks).load
    made = reference.make(task, shapes, reference.initial_params(task, target, config.seed, load))
    reference.check(made, store.load_json(folder, "progress", step=step).get("reference"), folder)
    return made


def _task_state(folder: pathlib.Path, task: Task, mesh: Mesh, step: int) -> Any:
    """The task state of the checkpoint; None if the task has none."""
    shapes = jax.eval_shape(task.init_state)
    if shapes is None:
        return None
    target = sharding.with_shardings(shapes, NamedSharding(mesh, P()))
    return store.load_arrays(folder, "task_state", target, step=step)


def _read(config: RunConfig, task: type[Task], sources: tuple[str, ...], purpose: Purpose) -> Any:
    """All of these sources, or the data that the run held out of its training data; None if there is none."""
    columns = task.columns(config, purpose)
    if not sources:
        return corpora.load(config.data, columns).validation
    # options that filter training documents must not apply here
    data = dataclasses.replace(
        config.data,
        train=tuple(sources),
        validation=(),
        validation_fraction=0.0,
        decontaminate=(),
        max_documents=None,
        weights=(),
        temperature=1.0,
    )
    return corpora.load(data, columns).train
