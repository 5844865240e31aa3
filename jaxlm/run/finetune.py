"""Fine-tuning: backbone and tokenizer of a run or a Hugging Face model, a new head and optimizer, the same loop."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.config import FinetuneConfig
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from
from jaxlm.run.pretrain import with_labels, with_vocab
from jaxlm.tasks import TASKS
from jaxlm.training import curriculum, loop, processes


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Trains a task on the model of `config.init`, in its own run folder; returns the summary.

    Raises:
        ValueError: anything that a person can mend, in one line.
    """
    processes.join(config.distributed)
    folder = run_folder.folder_of(config)
    parent = init_from.find(config)
    source = parent.folder
    if config.data.seq_len > parent.model.max_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} is more than the max_len={parent.model.max_len} of {source}"
        )
    if source.resolve() == folder.resolve():
        raise ValueError(f"--run-dir {folder} is the folder of --init: choose another one")
    with run_folder.claimed(folder, config):
        module = TASKS[type(config.task)]
        corpora = module.load(config)
        tokenizer = parent.tokenizer.with_tokens(module.added_tokens(config))
        model = with_vocab(parent.model, tokenizer)
        if config.dropout is not None:
            model = dataclasses.replace(
                model, dropout=config.dropout, attention_dropout=config.dropout
            )
        config = with_labels(dataclasses.replace(config, model=model), corpora)
        if processes.is_main():
            print(corpora.describe())
            print(f"model: {type(parent.model).__name__} of {source}", _origin(config), flush=True)
        run_folder.check_resumable(folder, config)
        tasks = curriculum.build(config, module, model, tokenizer, corpora)
        if processes.is_main():
            print(curriculum.describe(config, tasks), flush=True)
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        return loop.fit(config, tasks, folder, None if config.init == "none" else parent.load)


def _origin(config: FinetuneConfig) -> str:
    return "(random weights)" if config.init == "none" else "(pretrained weights)"
