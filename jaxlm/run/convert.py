"""Exports a run to a folder in the Hugging Face layout."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export
from jaxlm.models import heads
from jaxlm.report import run_log
from jaxlm.run import adapters
from jaxlm.run import folder as run_folder
from jaxlm.tasks import Task, task_class


def convert(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    max_shard_size: str = "5GB",
    dtype: str = "float32",
    step: int | None = None,
    tasks: Sequence[type[Task]] = (),
) -> str:
    """Writes the model of a run's newest checkpoint, or that of `step`; returns a line that describes it.

    Raises:
        ValueError: there is no such run or checkpoint, or transformers has no such model.
    """
    config = run_folder.read_config(run, tasks)
    folder = pathlib.Path(run)
    kind = task_class(config.task, tasks)
    if not kind.reads_text:
        raise ValueError(f"{folder}: transformers has no models of task {kind.name}")
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    task = kind(config, tokenizer)
    model = task.export_model()
    choice = export.choose(model)
    abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = sharding.with_shardings(abstract, single)
    params = adapters.load_merged(folder, target, step=step)
    checkpoint = store.describe(folder, step=step)
    export.save(
        out,
        model,
        params,
        tokenizer=tokenizer,
        labels=task.labels,
        card=_card(choice, config, folder, checkpoint),
        dtype=dtype,
        max_shard_size=max_shard_size,
    )
    return f"{choice.architecture} of step {checkpoint['step']} of {folder} is in {out}"


def _card(
    choice: export.Choice, config: Any, folder: pathlib.Path, checkpoint: dict[str, Any]
) -> str:
    """The model card, with the metrics of the checkpoint or, if it has none, those at the end of the run."""
    summary = run_log.read_summary(folder) if (folder / "summary.json").is_file() else {}
    batches = [f"{rows} rows of {length} tokens" for rows, length in config.batch_shapes]
    facts = {
        "task": type(config.task).__name__.removesuffix("Config"),
        "training data": ", ".join(config.data.train),
        "steps": f"{checkpoint['step']:,} of {', then '.join(batches)}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "seed": config.seed,
    }
    if "parameters" in summary:
        facts["parameters"] = f"{summary['parameters']:,}"
    scores = checkpoint["metrics"] or summary.get("evaluation") or {}
    return export.model_card(choice, config.name or folder.name, facts, scores)
