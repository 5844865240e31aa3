"""Fine-tuning: the backbone and tokenizer of a run or a Hugging Face model, with a new head and optimizer."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from jaxlm.config import FinetuneConfig, files
from jaxlm.hf import export
from jaxlm.report import trackers
from jaxlm.run import convert, init_from, prepare, resume, seeds
from jaxlm.run import folder as run_folder
from jaxlm.tasks import Task, task_class
from jaxlm.training import loop, processes, xla_flags
from jaxlm.training.curriculum import Plan


def finetune(config: FinetuneConfig, *, tasks: Sequence[type[Task]] = ()) -> dict[str, Any]:
    """Trains a task on the model of `config.init`, in its own run folder; returns the summary.

    Args:
        config: of the run, or with `seeds` of several.
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
    one = functools.partial(_one, tasks=tasks, export_to=config.export)
    summary = one(config) if config.seeds == 1 else seeds.run(config, one)
    if config.export is not None and not config.dry_run:
        _export(summary, config.export, tasks)
    return summary


def _one(
    config: FinetuneConfig, *, tasks: Sequence[type[Task]], export_to: str | None
) -> dict[str, Any]:
    """A run with a single seed; only checks that it can be exported to `export_to`."""
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
        earlier = resume.begun(folder, tasks)
        task = task_class(config.task, tasks)
        config = dataclasses.replace(config, task=task.inherit(config, source))
        config, data = prepare.read_data(config, task)
        own = source.tokenizer if source else prepare.tokenizer_of_run(folder, config, data)
        tokenizer = task.prepare_tokenizer(config, own)
        if tokenizer.chat_template != own.chat_template:
            prepare.say(f"{origin} has no chat template: it gets ChatML")
        if new := tokenizer.vocab_size - own.vocab_size:
            prepare.say(f"the tokenizer gets {new} new control tokens")
        model = prepare.with_vocab(
            start, tokenizer, can_grow=source is not None, parts=config.mesh.tensor
        )
        if config.dropout is not None:
            model = dataclasses.replace(
                model, dropout=config.dropout, attention_dropout=config.dropout
            )
        config = dataclasses.replace(config, model=model)
        prepare.say(data.describe())
        weights = "random" if config.init == "none" else "pretrained"
        prepare.say(f"model: {type(model).__name__} of {origin} ({weights} weights)")
        config = resume.with_phases(config, earlier)
        config, plan = prepare.make_plan(config, task, tokenizer, data)
        prepare.check(config, plan)
        changes = resume.check(folder, config, earlier)
        if export_to is not None:
            _check_export(config, plan, folder, export_to)
        prepare.say(plan.describe())
        if changes:
            prepare.say(changes)
        if not config.dry_run:
            run_folder.write(folder, config, tokenizer)
        load = None if source is None or config.init == "none" else source.load
        return loop.fit(config, plan, folder, load)


def _check_export(config: FinetuneConfig, plan: Plan, folder: pathlib.Path, out: str) -> None:
    """Checks before the first step that the best checkpoint will be there and can be exported.

    Raises:
        ValueError: it will not, or cannot; or the folder `out` is in use.
    """
    export.choose(plan.task.export_model())
    if plan.validation is not None and not config.checkpoint.keep_best:
        raise ValueError(
            f"export={out} needs the best checkpoint: do not set checkpoint.keep_best=False"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"export={out} is for a single process: leave it unset, and run `jaxlm convert {folder} {out} --step best` "
            "afterwards"
        )
    path = pathlib.Path(out)
    in_use = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if in_use and not run_folder.has_begun(folder):
        raise ValueError(f"export={out}: exists and is not empty; choose another folder")


def _export(summary: dict[str, Any], out: str, tasks: Sequence[type[Task]]) -> None:
    """Exports the best checkpoint (of the best seed), or the last one if nothing was evaluated."""
    path = pathlib.Path(out)
    if path.is_dir() and any(path.iterdir()):
        prepare.say(f"{out} is there already: not exported again")
        return
    runs = summary.get("runs", [summary])
    best = next((run for run in runs if run["seed"] == summary.get("best_seed")), runs[0])
    step: run_folder.Step = "best" if best["best"] else None
    prepare.say(convert.convert(best["run_dir"], out, step=step, tasks=tasks))
