"""Fine-tuning: the backbone and tokenizer of another run, a new head, a fresh optimizer, the same loop."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax

from jaxlm.config import FinetuneConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.tasks import TASKS
from jaxlm.training import checkpoint, loop, processes, run_folder
from jaxlm.training.pretrain import with_labels, with_vocab


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Trains a task on the model of `config.init`, in its own run folder; returns the summary.

    Raises:
        ValueError: anything that a person can mend, in one line.
    """
    processes.join(config.distributed)
    folder = run_folder.folder_of(config)
    source = source_of(config)
    parent = run_folder.read_config(source)
    if config.data.seq_len > parent.model.max_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} is more than the max_len={parent.model.max_len} of {source}"
        )
    if source.resolve() == folder.resolve():
        raise ValueError(f"--run-dir {folder} is the folder of --init: choose another one")
    with run_folder.claimed(folder):
        module = TASKS[type(config.task)]
        corpora = module.load(config)
        tokenizer = tokenizers.load(source / "tokenizer.json")
        tokenizer = tokenizer.with_tokens(module.added_tokens(config))
        model = with_vocab(parent.model, tokenizer)
        if config.dropout is not None:
            model = dataclasses.replace(
                model, dropout=config.dropout, attention_dropout=config.dropout
            )
        config = with_labels(dataclasses.replace(config, model=model), corpora)
        if jax.process_index() == 0:
            print(corpora.describe())
            print(f"model: {type(parent.model).__name__} of {source}", _origin(config), flush=True)
        run_folder.check_resumable(folder, config)
        task = module.build(config, model, tokenizer, corpora)
        if jax.process_index() == 0:
            print(task.train.describe(config.steps * config.batch_size), flush=True)
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        load = None if config.init == "none" else lambda abstract: _backbone(source, abstract)
        return loop.fit(config, task, folder, load)


def source_of(config: FinetuneConfig) -> pathlib.Path:
    """The run folder whose architecture and tokenizer are used."""
    if config.init != "none":
        return pathlib.Path(config.init)
    if config.init_like is None:
        raise ValueError(
            "--init none trains from random weights, but of what model? name a run folder with --init-like"
        )
    return pathlib.Path(config.init_like)


def _origin(config: FinetuneConfig) -> str:
    return "(random weights)" if config.init == "none" else "(pretrained weights)"


def _backbone(source: pathlib.Path, abstract: Any) -> Any:
    """The backbone's parameters from the newest checkpoint of a run, as the target lies on the mesh."""
    return checkpoint.load_params(source, {"backbone": abstract})["backbone"]
