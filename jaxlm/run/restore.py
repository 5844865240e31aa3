"""Restores a checkpoint together with its task, alone or with some data, for evaluation and prediction."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.config import CurriculumConfig, DataConfig, FinetuneConfig, MeshConfig
from jaxlm.data import corpora
from jaxlm.data.columns import Column
from jaxlm.data.loader import Dataset
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from
from jaxlm.tasks import Task, task_class
from jaxlm.tasks.task import Context, Purpose, dataset, init_params
from jaxlm.training import batches, phases, reference
from jaxlm.training.step import evaluation_context


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters of a checkpoint and its task."""

    folder: pathlib.Path
    config: Any
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
        batch_size=config.batch_size if batch_size is None else batch_size,
        accumulate=1,
        curriculum=CurriculumConfig(),
    )
    batches.check_batch_size(config, devices)
    renamed = {name: column for name, column in (columns or {}).items() if column is not None}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **renamed))
    kind = task_class(config.task, tasks)
    task = kind(config, run_folder.read_tokenizer(folder, kind))
    data = read(config.data, sources, kind.columns(config, purpose))
    if data is None:
        raise ValueError(f"{folder} has no validation data: name some with --data")
    data = kind.select(config.task, data, config)
    model = _load(folder, task, devices, step=step, purpose=purpose, tasks=tasks)
    return Restored(**vars(model), rows=dataset(task, data, purpose), data=data)


def restore_model(
    run_dir: str | os.PathLike,
    *,
    step: int | None = None,
    mesh: MeshConfig | None = None,
    tasks: Sequence[type[Task]] = (),
) -> Model:
    """The parameters of a checkpoint, by default on one device, and its task, without data; arguments as of `restore`.

    Raises:
        ValueError: there is no such run.
    """
    folder = pathlib.Path(run_dir)
    config = run_folder.read_config(folder, tasks)
    config = dataclasses.replace(config, accumulate=1, curriculum=CurriculumConfig())
    kind = task_class(config.task, tasks)
    task = kind(config, run_folder.read_tokenizer(folder, kind))
    one = jax.local_devices()[:1]
    devices = sharding.make_mesh(MeshConfig(), one) if mesh is None else sharding.make_mesh(mesh)
    return _load(folder, task, devices, step=step, purpose="predict", tasks=tasks)


def _load(
    folder: pathlib.Path,
    task: Task,
    mesh: Mesh,
    *,
    step: int | None,
    purpose: Purpose,
    tasks: Sequence[type[Task]],
) -> Model:
    """The parameters of a checkpoint, and what else the task's loss needs in evaluation."""
    config: Any = task.config
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(functools.partial(init_params, task), jax.random.key(0))
        target = sharding.with_shardings(abstract, sharding.param_shardings(abstract, mesh))
        params = store.load_params(folder, target, step=step)
        step = store.describe(folder, step=step)["step"]
        assert step is not None
        context = evaluation_context(
            jnp.int32(step),
            # only a loss compares with it, and it needs the model that the run began with
            None
            if purpose == "predict"
            else _reference(folder, config, task, target, mesh, step, tasks),
            _task_state(folder, task, mesh, step),
            phases.index_at(config.phases, step),
        )
    return Model(folder, config, step, task, params, context, mesh)


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


def read(data: DataConfig, sources: tuple[str, ...], columns: Mapping[str, Column]) -> Any:
    """All of these sources; without any, the run's validation data: named or held out of its training data.

    Args:
        data: of the run: how sources are read.
        sources: as in `data.validation`.
        columns: as `Task.columns`; empty: plain text.

    Returns:
        Text or records; None: the run has no validation data.
    """
    sources = sources or data.validation
    if not sources:
        return corpora.load(data, columns).validation
    # options that filter training documents must not apply here
    data = dataclasses.replace(
        data,
        train=tuple(sources),
        validation=(),
        validation_fraction=0.0,
        decontaminate=(),
        max_documents=None,
        weights=(),
        temperature=1.0,
    )
    return corpora.load(data, columns).train
