"""Finds a model together with its task, alone or with some data, for evaluation and prediction."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import hf, sharding
from jaxlm.checkpoint import store
from jaxlm.config import CurriculumConfig, DataConfig, FinetuneConfig, MeshConfig, TrainConfig
from jaxlm.data import corpora
from jaxlm.data.columns import Column
from jaxlm.hf import loading
from jaxlm.remote import mirror
from jaxlm.run import folder as run_folder
from jaxlm.run import hf_task, init_from, init_train, override
from jaxlm.run.model import Found, Model, Restored
from jaxlm.tasks import Task, task_class
from jaxlm.tasks.task import Purpose, dataset, init_params
from jaxlm.training import phases, reference
from jaxlm.training.step import evaluation_context


def find(
    path: str | os.PathLike,
    *,
    task: str | None = None,
    step: run_folder.Step = None,
    batch_size: int | None = None,
    seq_len: int | None = None,
    mesh: Mesh | None = None,
    columns: Mapping[str, str | None] | None = None,
    on_bad_row: str | None = None,
    settings: Mapping[str, Any] | None = None,
    purpose: Purpose = "validation",
    tasks: Sequence[type[Task]] = (),
) -> Found:
    """The task and the checkpoint of a run, or the task that fits a model in the Hugging Face layout.

    Args:
        path: folder of a run or of a Hugging Face model, a .gguf file, or `hub:owner/name`.
        task: name of another task for the model, as `Task.name`.
        step: of a run's checkpoint, or "best"; default: the newest.
        batch_size: rows per batch; default: that of the run.
        seq_len: tokens per row; default: that of the run.
        mesh: devices; default: all, which replicate the model.
        columns: role, or field of the run's `data`, -> column of the file; None: as in the run.
        on_bad_row: as `data.on_bad_row`; default: that of the run.
        settings: other values of settings of the task, of those that `Task.adjustable` names for this purpose.
        purpose: "validation", or "predict" for data without labels.
        tasks: custom tasks, in addition to those of jaxlm.

    Raises:
        ValueError: there is no such model, or no task for it.
    """
    mesh = sharding.make_mesh(MeshConfig()) if mesh is None else mesh
    change = functools.partial(
        override.override,
        batch_size=batch_size,
        seq_len=seq_len,
        columns=columns or {},
        on_bad_row=on_bad_row,
        mesh=mesh,
        settings=settings or {},
        purpose=purpose,
    )
    if (name := str(path)).startswith(init_from.HUB):
        path = loading.local_folder(name.removeprefix(init_from.HUB))
    path = mirror.local(path)
    if hf.is_model(path):
        if step is not None:
            raise ValueError(f"{path}: only runs have steps, and this is not the folder of a run")
        return hf_task.find(path, task, mesh, change, tasks)
    folder = pathlib.Path(path)
    config = run_folder.read_config(folder, tasks)
    kind = task_class(config.task, tasks)
    config = dataclasses.replace(config, accumulate=1, curriculum=CurriculumConfig())
    if task is not None and task != kind.name:
        return _as_other_task(folder, config, kind, task, mesh, change, step, tasks)
    config = change(kind, config)
    found = kind(config, run_folder.read_tokenizer(folder, kind))

    def load(purpose: Purpose) -> Model:
        return _load(folder, found, mesh, step=step, purpose=purpose, tasks=tasks)

    return Found(folder, config, found, mesh, load)


def _as_other_task(
    folder: pathlib.Path,
    config: Any,
    own: type[Task],
    name: str,
    mesh: Mesh,
    change: Callable[[type[Task], Any], Any],
    step: run_folder.Step,
    tasks: Sequence[type[Task]],
) -> Found:
    """The model of a run with another task that works with its head."""
    tokenizer = run_folder.read_tokenizer(folder, own)
    trained = own(config, tokenizer)
    about = {"id2label": dict(enumerate(trained.labels))}
    kind, settings = hf_task.choose(str(folder), trained.model, about, name, tasks)
    config = change(kind, dataclasses.replace(config, task=settings))
    found = kind(config, tokenizer)

    def load(purpose: Purpose) -> Model:
        run = _load(folder, trained, mesh, step=step, purpose="predict", tasks=tasks)
        return dataclasses.replace(run, config=config, task=found)

    return Found(folder, config, found, mesh, load)


def restore(
    run_dir: str | os.PathLike,
    *,
    sources: tuple[str, ...] = (),
    purpose: Purpose = "validation",
    step: run_folder.Step = None,
    batch_size: int | None = None,
    seq_len: int | None = None,
    mesh: MeshConfig | None = None,
    columns: Mapping[str, str | None] | None = None,
    task: str | None = None,
    tasks: Sequence[type[Task]] = (),
) -> Restored:
    """The parameters of a checkpoint on a mesh, and its task over some data.

    Args:
        run_dir: folder of a run, or of a model in the Hugging Face layout, which is used with its own head.
        sources: as in `data.validation`; default: the run's validation data.
        purpose: "validation", or "predict" for data without labels.
        step: of the checkpoint, or "best"; default: the newest.
        batch_size: rows per batch; default: that of the run.
        seq_len: tokens per row; default: that of the run.
        mesh: shape of the mesh; default: all devices replicate the model.
        columns: role, or field of the run's `data`, -> column of these sources, such as {"text": "sentence"} or
            {"text_column": "sentence"}; None: as in the run.
        task: name of another task for the model.
        tasks: custom tasks, in addition to those of jaxlm.

    Raises:
        ValueError: there is no such run or no validation data, or the data does not fit the run.
    """
    found = find(
        run_dir,
        task=task,
        step=step,
        batch_size=batch_size,
        seq_len=seq_len,
        mesh=sharding.make_mesh(mesh or MeshConfig()),
        columns=columns,
        tasks=tasks,
    )
    return with_rows(found, sources, purpose)


def with_rows(found: Found, sources: tuple[str, ...], purpose: Purpose) -> Restored:
    """A model with rows of data; arguments and errors as of `restore`."""
    config, kind = found.config, type(found.task)
    if not sources and not found.is_run:
        raise ValueError(f"{found.folder} has no validation data: name some with --data")
    data = read(config.data, sources, kind.columns(config, purpose))
    if data is None:
        raise ValueError(f"{found.folder} has no validation data: name some with --data")
    if not found.is_run and purpose == "validation" and kind.columns(config, purpose):
        # what a run finds out about its training data, such as the language of the answers
        config = dataclasses.replace(config, task=kind.resolve(config.task, data))
    data = kind.select(config.task, data, config)
    model = found.load(purpose)
    if config is not found.config:
        task = kind(config, model.task.tokenizer)
        model = dataclasses.replace(model, config=config, task=task)
    return Restored(**vars(model), rows=dataset(model.task, data, purpose), data=data)


def read_texts(found: Found, sources: tuple[str, ...]) -> list[str]:
    """The documents of sources, or of the run's validation data.

    Raises:
        ValueError: there are none, or they are no plain text.
    """
    if not sources and not found.is_run:
        raise ValueError(f"{found.folder} has no validation data: name some with --data")
    text = read(found.config.data, sources, {})
    if text is None:
        raise ValueError(f"{found.folder} has no validation data: name some with --data")
    texts: list[str] = []
    for part in text.parts if isinstance(text, corpora.Sources) else (text,):
        if not hasattr(part, "texts"):
            raise ValueError(
                "shards hold tokens, not text, whose words and bytes count here: name the texts"
            )
        texts += part.texts
    return texts


def restore_model(
    run_dir: str | os.PathLike,
    *,
    step: run_folder.Step = None,
    mesh: MeshConfig | None = None,
    tasks: Sequence[type[Task]] = (),
) -> Model:
    """The parameters of a checkpoint, by default on one device, and its task, without data; arguments as of `restore`.

    Raises:
        ValueError: there is no such run.
    """
    folder = mirror.local(run_dir)
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
    step: run_folder.Step,
    purpose: Purpose,
    tasks: Sequence[type[Task]],
) -> Model:
    """The parameters of a checkpoint, and what else the task's loss needs in evaluation."""
    config: Any = task.config
    chosen = run_folder.step_of(folder, step, task)
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(functools.partial(init_params, task), jax.random.key(0))
        target = sharding.with_shardings(abstract, sharding.param_shardings(abstract, mesh))
        params = store.load_params(folder, target, step=chosen)
        number: int = store.describe(folder, step=chosen)["step"]
        context = evaluation_context(
            jnp.int32(number),
            # only a loss compares with it, and it needs the model that the run began with
            None
            if purpose == "predict"
            else _reference(folder, config, task, target, mesh, number, tasks),
            _task_state(folder, task, mesh, number),
            phases.index_at(config.phases, number),
        )
    return Model(folder, config, number, task, params, context, mesh)


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
    elif isinstance(config, TrainConfig) and (start := init_train.find(config, tasks)) is not None:
        load = start.load
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
