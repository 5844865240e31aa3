"""Pretraining: trains a tokenizer if necessary, and a model from random or pretrained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.config import TrainConfig, files
from jaxlm.report import trackers
from jaxlm.run import folder as run_folder
from jaxlm.run import init_train, prepare, resume
from jaxlm.tasks import Task, task_class
from jaxlm.training import loop, processes, xla_flags


def pretrain(config: TrainConfig, *, tasks: Sequence[type[Task]] = ()) -> dict[str, Any]:
    """Trains the model of the config in its run folder; returns the summary.

    Args:
        config: of the run.
        tasks: custom tasks, in addition to those of jaxlm.

    Raises:
        ValueError: a problem that the user can fix; the message is one line.
    """
    files.check(config)
    trackers.check(config.log)
    note = xla_flags.apply(config)
    processes.join(config.distributed)
    if note is not None:
        prepare.say(note)
    folder = run_folder.folder_of(config)
    with run_folder.lock(folder, config):
        earlier = resume.begun(folder, tasks)
        task = task_class(config.task, tasks)
        config, data = prepare.read_data(config, task)
        prepare.say(data.describe())
        tokenizer, start = None, init_train.find(config, tasks)
        if start is not None:
            tokenizer = start.tokenizer
            config = dataclasses.replace(config, model=start.model)
            prepare.say(start.description)
        elif task.reads_text:
            tokenizer = prepare.tokenizer_of_run(folder, config, data)
        if tokenizer is not None:
            tokenizer = task.prepare_tokenizer(config, tokenizer)
            model = prepare.with_vocab(
                config.model, tokenizer, can_grow=config.init is not None, parts=config.mesh.tensor
            )
            config = dataclasses.replace(config, model=model)
        config = resume.with_phases(config, earlier)
        config, plan = prepare.make_plan(config, task, tokenizer, data)
        prepare.check(config, plan)
        changes = resume.check(folder, config, earlier)
        prepare.say(plan.describe())
        if changes:
            prepare.say(changes)
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        return loop.fit(config, plan, folder, None if start is None else start.load)
