"""Preparation of a run: reads its data, completes its settings, loads or trains its tokenizer."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm import sharding
from jaxlm.config import DenseVAEConfig, ModelConfig, RunConfig, VAEConfig, files
from jaxlm.data import corpora, shards
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.columns import Column
from jaxlm.data.corpora import Corpora
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.remote import mirror
from jaxlm.run import folder as run_folder
from jaxlm.tasks import Task
from jaxlm.tasks.task import init_params
from jaxlm.training import batches, curriculum, phases, private_run, processes
from jaxlm.training.curriculum import Plan


def read_data(config: Any, task: type[Task]) -> tuple[Any, Corpora]:
    """The data of a run, and its config with the task settings that follow from the data, such as class names."""
    columns = task.columns(config, "train")
    if columns and config.privacy.unit is not None:
        unit = Column(config.privacy.unit, "label", required=False, option="privacy.unit")
        columns = {**columns, private_run.UNIT: unit}
    data = corpora.load(config.data, columns)
    try:
        settings = task.resolve(config.task, data.train)
    except ValueError as e:
        if config.data.max_documents is None or not str(e).startswith("data.train"):
            raise
        raise ValueError(
            f"{e} (data.max_documents={config.data.max_documents} reads no more: raise it, or shuffle the file)"
        ) from e
    if config.privacy.is_on and "settings" not in config.privacy.public:
        for name, (_, found) in files.differences(config.task, settings).items():
            raise ValueError(
                f"task.{name}={found} would be read from the private data.train: set it, or say --privacy.public "
                "settings if it may be known"
            )
    config = dataclasses.replace(config, task=settings)
    held_out = data.validation
    return config, dataclasses.replace(
        data,
        train=task.select(settings, data.train, config),
        validation=None if held_out is None else task.select(settings, held_out, config),
    )


def make_plan(
    config: Any, task: type[Task], tokenizer: Tokenizer | None, data: Corpora
) -> tuple[Any, Plan]:
    """The plan of a run, and its config with the number of steps and phase ends as steps."""
    if config.privacy.is_on:
        config = _with_plain_attention(config)
    units = None
    if config.epochs is None:
        config = _warmup_that_fits(config)
        plan = curriculum.build(config, task, tokenizer, data)
        if config.privacy.is_on:
            units = private_run.units_of(config, plan.task, plan.train[0], data.train)
    else:
        # the number of steps follows from that of the rows, which do not depend on it
        plan = curriculum.build(config, task, tokenizer, data)
        if config.privacy.is_on:
            units = private_run.units_of(config, plan.task, plan.train[0], data.train)
        rows = len(plan.train[0] if units is None else units)
        steps = max(math.ceil(config.epochs * rows / config.batch_size), 1)
        say(f"{config.epochs:g} epochs of {rows:,} rows: {steps:,} steps")
        config = _warmup_that_fits(dataclasses.replace(config, steps=steps))
        plan = curriculum.with_config(plan, config, task, tokenizer)
    resolved = phases.resolve(config, plan.task.phases())
    config = dataclasses.replace(config, phases=resolved)
    if (note := plan.task.note()) is not None:
        say(note)
    if units is not None:
        private = private_run.build(config, units)
        say(private.describe())
        plan = dataclasses.replace(plan, private=private)
    return config, plan


def _with_plain_attention(config: Any) -> Any:
    """The config with attention that can be mapped over examples: the fused kernels cannot."""
    if config.compute.attention not in ("auto", "xla"):
        raise ValueError(
            f"compute.attention={config.compute.attention} cannot be mapped over single examples, as privacy.epsilon "
            "needs: use xla"
        )
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, attention="xla"))


def _warmup_that_fits(config: Any) -> Any:
    """The config with a warm-up of a tenth of the steps if it would not end within the run; says so."""
    warmup = config.optimizer.warmup_steps
    if warmup <= config.steps:
        return config
    shorter = config.steps // 10
    say(
        f"warm-up: {shorter:,} steps, a tenth of the run, instead of the {warmup:,} of optimizer.warmup_steps, "
        f"because the run has {config.steps:,} steps"
    )
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=shorter)
    return dataclasses.replace(config, optimizer=optimizer)


def check(config: Any, plan: Plan) -> None:
    """Checks what can be checked without compiling, before anything is written to the run folder.

    Raises:
        ValueError: mesh, batch size, groups or phases do not fit.
    """
    mesh = sharding.make_mesh(config.mesh)
    batches.check_sizes(config, mesh)
    with jax.set_mesh(mesh):
        params = jax.eval_shape(functools.partial(init_params, plan.task), jax.random.key(0))
    sharding.param_shardings(params, mesh)
    phases.make_phases(config, plan.task.phases(), params)


def tokenizer_of_run(folder: pathlib.Path, config: RunConfig, data: Corpora) -> Tokenizer:
    """The tokenizer of the run folder if the run has begun, otherwise that of the config; the same on all processes."""
    if (folder / "tokenizer.json").is_file() and run_folder.has_begun(folder):
        tokenizer = tokenizers.load(folder / "tokenizer.json")
    else:
        tokenizer = tokenizer_of(config, data)
    _check_same(tokenizer.fingerprint)
    say(f"tokenizer: {tokenizer.vocab_size:,} entries")
    return tokenizer


def tokenizer_of(config: RunConfig, data: Corpora) -> Tokenizer:
    """The tokenizer at the config's path, that of the shards, or one trained on the training texts."""
    if config.data.tokenizer.path is not None:
        return tokenizers.load(config.data.tokenizer.path)
    if config.privacy.is_on and "tokenizer" not in config.privacy.public:
        raise ValueError(
            "the tokenizer would be one that was trained on the private data.train, and tell of it: set "
            "data.tokenizer.path to another, or say --privacy.public tokenizer if its entries may be known"
        )
    if (path := shards.tokenizer_path(config.data)) is not None:
        return tokenizers.load(path)
    say(f"training a {config.data.tokenizer.kind} tokenizer ...")
    return tokenizers.train(list(data.texts()), config.data.tokenizer)


def _check_same(fingerprint: str) -> None:
    """Raises ValueError unless all processes have the same tokenizer."""
    if not jax.distributed.is_initialized():
        return
    digest = np.frombuffer(hashlib.sha256(fingerprint.encode()).digest()[:4], np.int32)
    if len(np.unique(multihost_utils.process_allgather(digest))) > 1:
        raise ValueError(
            "the processes have different tokenizers: do all of them read the same data.train? "
            "Train one with `jaxlm tokenizer train` and set data.tokenizer.path to it"
        )


Model = TypeVar("Model", bound=ModelConfig | VAEConfig | DenseVAEConfig)


def with_vocab(
    model: Model, tokenizer: Tokenizer, *, can_grow: bool = False, parts: int = 1
) -> Model:
    """The model config with vocab_size filled in, if unset: that of the tokenizer, rounded up to a multiple of 64.

    With `can_grow` also if the tokenizer has become larger, or if the tables of tokens cannot be split into `parts`
    (`mesh.tensor`): `init_from.Source.load` makes rows for new tokens.
    """
    if isinstance(model, DenseVAEConfig):
        # without tokens: the task says which models it needs
        return model
    if isinstance(model, VAEConfig):
        return dataclasses.replace(
            model,
            encoder=with_vocab(model.encoder, getattr(tokenizer, "encoder", tokenizer)),
            decoder=with_vocab(model.decoder, tokenizer),
        )
    if model.vocab_size is None or (can_grow and model.vocab_size < tokenizer.vocab_size):
        return dataclasses.replace(model, vocab_size=-(-tokenizer.vocab_size // 64) * 64)
    # -1: as many as devices remain, usually a power of two
    multiple = 64 if parts == -1 else math.lcm(64, parts)
    if can_grow and model.vocab_size % (64 if parts == -1 else parts):
        rounded = -(-model.vocab_size // multiple) * multiple
        say(f"the tables of tokens get {rounded - model.vocab_size} rows more, for mesh.tensor")
        return dataclasses.replace(model, vocab_size=rounded)
    if model.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size={model.vocab_size} is less than the {tokenizer.vocab_size} entries of the "
            "tokenizer: leave it unset, or use a smaller tokenizer"
        )
    return model


def say(line: str) -> None:
    """Prints a line, on the main process."""
    if processes.is_main():
        print(mirror.shown(line), flush=True)
