"""Evaluation: the scores of a run's stored parameters on its validation data, or on other data of the same form."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.config import CurriculumConfig, MeshConfig, RunConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.models import heads
from jaxlm.run import folder as run_folder
from jaxlm.tasks import TASKS
from jaxlm.tasks.task import Task
from jaxlm.training import batches
from jaxlm.training.totals import totals


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a run reaches on some data."""

    # step of the checkpoint
    step: int
    examples: int
    metrics: dict[str, float]
    # the metrics laid out for people, where the task has more than a line
    rendered: str | None


class Opened(NamedTuple):
    """A checkpoint with the data to score it on."""

    config: RunConfig
    step: int
    # its validation data are the examples
    task: Task
    params: Any
    mesh: Mesh


def evaluate(run: Opened) -> Scores:
    """The scores of a checkpoint over all its examples."""
    config, step, task, params, mesh = run
    with jax.set_mesh(mesh):
        score = jax.jit(
            lambda params, batch: task.loss(params, batch, None)[1],
            out_shardings=NamedSharding(mesh, P()),
        )
        assert task.validation is not None
        sums = totals(functools.partial(score, params), task.validation, config.batch_size, mesh)
    return Scores(
        step=step,
        examples=len(task.validation),
        metrics=task.summarize(sums),
        rendered=task.render(sums) if task.render else None,
    )


def opened(
    run_dir: str | os.PathLike,
    *,
    sources: tuple[str, ...] = (),
    step: int | None = None,
    batch_size: int | None = None,
    mesh: MeshConfig | None = None,
    columns: dict[str, str] | None = None,
) -> Opened:
    """The parameters of a checkpoint, its task over the examples of the sources, and the mesh that they are on.

    Args:
        run_dir: folder of a run.
        sources: as in `data.validation`; nothing: the run's validation data.
        step: of the checkpoint; None: the newest.
        batch_size: rows at a time; None: the run's.
        mesh: None: all devices replicate the model.
        columns: fields of the run's `data` that are other for these sources, such as {"text_column": "sentence"}.

    Raises:
        ValueError: no run there, no validation data, or data that does not fit the run.
    """
    folder = pathlib.Path(run_dir)
    config = run_folder.read_config(folder)
    devices = sharding.make_mesh(mesh or MeshConfig())
    config = dataclasses.replace(
        config,
        batch_size=batch_size or config.batch_size,
        accumulate=1,
        curriculum=CurriculumConfig(),
    )
    batches.check_batch_size(config, devices)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **(columns or {})))
    module = TASKS[type(config.task)]
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    corpora = module.load(_only(config, sources or config.data.validation))
    held_out = corpora.train if sources or config.data.validation else corpora.validation
    if held_out is None:
        raise ValueError(f"{folder} set no validation data aside: name some with --data")
    corpora = dataclasses.replace(corpora, train=held_out, validation=held_out)
    task = module.build(config, config.model, tokenizer, corpora)
    with jax.set_mesh(devices):
        init = functools.partial(heads.init_params, task.model)
        abstract = jax.eval_shape(init, jax.random.key(0))
        target = jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            abstract,
            sharding.param_shardings(abstract, devices),
        )
        params = store.load_params(folder, target, step=step)
    return Opened(config, store.describe(folder, step=step)["step"], task, params, devices)


def _only(config: Any, sources: tuple[str, ...]) -> Any:
    """The config that reads all of these sources and nothing else; without any, the config as it is."""
    if not sources:
        return config
    # what left out training documents must not leave out these
    whole: dict[str, Any] = dict(validation_fraction=0.0, decontaminate=(), max_documents=None)
    whole |= dict(weights=(), temperature=1.0)
    data = dataclasses.replace(config.data, train=tuple(sources), validation=(), **whole)
    return dataclasses.replace(config, data=data)
