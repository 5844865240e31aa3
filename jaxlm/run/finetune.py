"""Fine-tuning: the backbone and tokenizer of a run or a Hugging Face model, with a new head and optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.config import FinetuneConfig, files
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from, prepare
from jaxlm.tasks import Task, task_class
from jaxlm.training import loop, processes


def finetune(config: FinetuneConfig, *, tasks: Sequence[type[Task]] = ()) -> dict[str, Any]:
    """Trains a task on the model of `config.init`, in its own run folder; returns the summary.

    Args:
        config: of the run.
        tasks: custom tasks, in addition to those of jaxlm.

    Raises:
        ValueError: a problem that the user can fix; the message is one line.
    """
    files.check(config)
    processes.join(config.distributed)
    folder = run_folder.folder_of(config)
    source = init_from.find(config, tasks)
    if config.data.seq_len > source.model.max_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} is more than the max_len={source.model.max_len} of {source.folder}"
        )
    if source.folder.resolve() == folder.resolve():
        raise ValueError(f"--run-dir {folder} is the folder of --init: choose another one")
    with run_folder.lock(folder, config):
        task = task_class(config.task, tasks)
        config, data = prepare.read_data(config, task)
        tokenizer = task.prepare_tokenizer(config, source.tokenizer)
        if tokenizer.chat_template != source.tokenizer.chat_template:
            prepare.say(f"{source.folder} has no chat template: it gets ChatML")
        if new := tokenizer.vocab_size - source.tokenizer.vocab_size:
            prepare.say(f"the tokenizer gets {new} new control tokens")
        model = source.model
        assert model.vocab_size is not None
        if tokenizer.vocab_size > model.vocab_size:
            # `source.load` makes rows for the new tokens
            model = dataclasses.replace(model, vocab_size=None)
        model = prepare.with_vocab(model, tokenizer)
        if config.dropout is not None:
            model = dataclasses.replace(
                model, dropout=config.dropout, attention_dropout=config.dropout
            )
        config = dataclasses.replace(config, model=model)
        prepare.say(data.describe())
        weights = "random" if config.init == "none" else "pretrained"
        prepare.say(f"model: {type(model).__name__} of {source.folder} ({weights} weights)")
        config, plan = prepare.make_plan(config, task, tokenizer, data)
        prepare.check(config, plan)
        run_folder.check_resumable(folder, config, tasks)
        prepare.say(plan.describe())
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        return loop.fit(config, plan, folder, None if config.init == "none" else source.load)
