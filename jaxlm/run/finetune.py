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
    source = None if init_from.is_new(config) else init_from.find(config, tasks)
    start: Any = config.model if source is None else source.model
    origin = "the config" if source is None else source.folder
    if config.data.seq_len > start.max_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} is more than the max_len={start.max_len} of {origin}"
        )
    if source is not None and source.folder.resolve() == folder.resolve():
        raise ValueError(f"--run-dir {folder} is the folder of --init: choose another one")
    with run_folder.lock(folder, config):
        task = task_class(config.task, tasks)
        config, data = prepare.read_data(config, task)
        if source is None:
            tokenizer = prepare.tokenizer_of_run(folder, config, data)
        else:
            tokenizer = source.tokenizer
        tokenizer = tokenizer.with_tokens(task.added_tokens(config))
        model = prepare.with_vocab(start, tokenizer)
        if config.dropout is not None:
            model = dataclasses.replace(
                model, dropout=config.dropout, attention_dropout=config.dropout
            )
        config = dataclasses.replace(config, model=model)
        prepare.say(data.describe())
        weights = "random" if config.init == "none" else "pretrained"
        prepare.say(f"model: {type(model).__name__} of {origin} ({weights} weights)")
        config, plan = prepare.make_plan(config, task, tokenizer, data)
        prepare.check(config, plan)
        run_folder.check_resumable(folder, config, tasks)
        prepare.say(plan.describe())
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        pretrained = source is not None and config.init != "none"
        return loop.fit(config, plan, folder, source.load if source and pretrained else None)
