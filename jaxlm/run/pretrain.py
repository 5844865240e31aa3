"""Pretraining: a tokenizer, a model from random weights, and the loop."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.config import ModelConfig, RunConfig, TrainConfig
from jaxlm.data import shards
from jaxlm.data import tokenizer as tokenizers
from jaxlm.run import folder as run_folder
from jaxlm.tasks import TASKS, Corpora
from jaxlm.training import curriculum, loop, processes


def pretrain(config: TrainConfig) -> dict[str, Any]:
    """Trains a model as the config says, in its run folder; returns the summary.

    Raises:
        ValueError: anything that a person can mend, in one line.
    """
    processes.join(config.distributed)
    folder = run_folder.folder_of(config)
    with run_folder.claimed(folder, config):
        module = TASKS[type(config.task)]
        corpora = module.load(config)
        _say(corpora.describe())
        tokenizer = _tokenizer(folder, config, corpora).with_tokens(module.added_tokens(config))
        config = dataclasses.replace(config, model=with_vocab(config.model, tokenizer))
        config = with_labels(config, corpora)
        run_folder.check_resumable(folder, config)
        tasks = curriculum.build(config, module, config.model, tokenizer, corpora)
        _say(curriculum.describe(config, tasks))
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        return loop.fit(config, tasks, folder)


def _tokenizer(folder: pathlib.Path, config: RunConfig, corpora: Corpora) -> tokenizers.Tokenizer:
    """The tokenizer of a run folder that has begun, else that of the config; the same on all processes."""
    if (folder / "tokenizer.json").is_file() and (folder / "config.json").is_file():
        tokenizer = tokenizers.load(folder / "tokenizer.json")
    else:
        tokenizer = tokenizer_of(config, corpora)
    _agree(tokenizer.fingerprint)
    _say(f"tokenizer: {tokenizer.vocab_size:,} entries")
    return tokenizer


def tokenizer_of(config: RunConfig, corpora: Corpora) -> tokenizers.Tokenizer:
    """The tokenizer of the config's path, of the shards, or one trained on the training texts."""
    if config.data.tokenizer.path is not None:
        return tokenizers.load(config.data.tokenizer.path)
    if (written := shards.tokenizer_path(config.data)) is not None:
        return tokenizers.load(written)
    _say(f"training a {config.data.tokenizer.kind} tokenizer ...")
    return tokenizers.train(corpora.texts(), config.data.tokenizer)


def _agree(fingerprint: str) -> None:
    """Raises ValueError unless all processes have the same tokenizer."""
    if not jax.distributed.is_initialized():
        return
    number = np.frombuffer(hashlib.sha256(fingerprint.encode()).digest()[:4], np.int32)
    if len(np.unique(multihost_utils.process_allgather(number))) > 1:
        raise ValueError(
            "the processes have different tokenizers: do all of them read the same data.train? "
            "Train one with `jaxlm tokenizer train` and name it in data.tokenizer.path"
        )


def with_vocab(model: ModelConfig, tokenizer: tokenizers.Tokenizer) -> ModelConfig:
    """The model with the tokenizer's vocabulary, rounded up to a multiple of 64 if the config leaves it open."""
    if model.vocab_size is None:
        return dataclasses.replace(model, vocab_size=-(-tokenizer.vocab_size // 64) * 64)
    if model.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size={model.vocab_size} is less than the {tokenizer.vocab_size} entries of the "
            "tokenizer: leave it out, or use a smaller tokenizer"
        )
    return model


def with_labels(config: Any, corpora: Corpora) -> Any:
    """The config with the names of the classes that the data has."""
    if not corpora.labels:
        return config
    return dataclasses.replace(config, task=dataclasses.replace(config.task, labels=corpora.labels))


def _say(line: str) -> None:
    if processes.is_main():
        print(line, flush=True)
