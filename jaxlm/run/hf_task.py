"""A model in the Hugging Face layout with its own head, as a model of the task that fits it."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import ComputeConfig, DataConfig, FinetuneConfig, TaskConfig
from jaxlm.data import frames
from jaxlm.hf import loading
from jaxlm.hf.description import describe
from jaxlm.models import heads
from jaxlm.run.model import Found, Model
from jaxlm.tasks import TASKS, Task
from jaxlm.tasks.task import Purpose
from jaxlm.training.step import evaluation_context

# tokens per row, where a model could read more; rows and tokens are chosen by the options of the commands
SEQ_LEN, BATCH_SIZE = 512, 32


def choose(
    where: str,
    model: Any,
    about: Mapping[str, Any],
    name: str | None = None,
    tasks: Sequence[type[Task]] = (),
) -> tuple[type[Task], TaskConfig]:
    """The first task that fits a model with its head, or that of a name; and its settings.

    Raises:
        ValueError: there is none.
    """
    known = {task.name: task for task in (*tasks, *TASKS)}
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no task {name!r}; {hint}")
    fitting = {
        task.name: (task, settings)
        for task in known.values()
        if (settings := task.of_model(model, about)) is not None
    }
    if name is None and fitting:
        return next(iter(fitting.values()))
    if name in fitting:
        return fitting[name]
    head = type(model).__name__
    if name is not None:
        others = f"; it fits {', '.join(fitting)}" if fitting else ""
        raise ValueError(f"{where}: task {name} does not work with a {head}{others}")
    raise ValueError(
        f"{where}: there is no task for a {head}; `jaxlm finetune --init {where}` trains one"
    )


def find(
    path: str | os.PathLike,
    name: str | None,
    mesh: Mesh,
    change: Callable[[type[Task], Any], Any] = lambda kind, config: config,
    tasks: Sequence[type[Task]] = (),
    compute: ComputeConfig | None = None,
) -> Found:
    """The task of a folder in the Hugging Face layout or a .gguf file; texts get the control tokens of its tokenizer.

    Args:
        path: the folder or file.
        name: of the task; default: the first one that fits.
        mesh: devices.
        change: makes the config that the caller wants.
        tasks: custom tasks, in addition to those of jaxlm.
        compute: compute settings; default: those of `ComputeConfig`.
    """
    folder = loading.local_folder(path)
    described = describe(folder)
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder}: the model has no tokenizer")
    tokenizer = dataclasses.replace(tokenizer, frame=frames.of(tokenizer))
    model = loading.build(described, compute or ComputeConfig())
    kind, settings = choose(str(path), model, described.settings, name, tasks)
    shards = sharding.batch_shards(mesh)
    config = FinetuneConfig(
        name=folder.name,
        init=str(folder),
        model=described.config,
        task=settings,
        data=DataConfig(train=(str(folder),), seq_len=min(described.config.max_len, SEQ_LEN)),
        compute=compute or ComputeConfig(),
        batch_size=-(-BATCH_SIZE // shards) * shards,
    )
    config = change(kind, config)
    task = kind(config, tokenizer)

    def load(purpose: Purpose) -> Model:
        abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
        target = sharding.with_shardings(abstract, sharding.param_shardings(abstract, mesh))
        return with_params(found, loading.load_params(described, target))

    found = Found(folder, config, task, mesh, load, is_run=False)
    return found


def with_params(found: Found, params: Any) -> Model:
    """The model with these parameters."""
    with jax.set_mesh(found.mesh):
        context = evaluation_context(jnp.int32(0))
    return Model(found.folder, found.config, 0, found.task, params, context, found.mesh)
