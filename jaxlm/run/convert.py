"""From a run to a folder of the Hugging Face layout."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from jaxlm.checkpoint import store
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export
from jaxlm.models import heads
from jaxlm.report import run_log
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
    """Writes the model of a run's checkpoint (the newest, unless `step`) and returns a line that says what it is.

    Raises:
        ValueError: no such run or checkpoint, or no such model in transformers.
    """
    config = run_folder.read_config(run, tasks)
    folder = pathlib.Path(run)
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    task = task_class(config.task, tasks)(config, tokenizer)
    model = task.export_model()
    choice = export.choose(model)
    abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), abstract)
    params = store.load_params(folder, target, step=step)
    found = store.describe(folder, step=step)
    export.save(
        out,
        model,
        params,
        tokenizer=tokenizer,
        labels=task.labels,
        card=_card(choice, config, folder, found),
        dtype=dtype,
        max_shard_size=max_shard_size,
    )
    return f"{choice.architecture} of step {found['step']} of {folder} in {out}"


def _card(choice: export.Choice, config: Any, folder: pathlib.Path, found: dict[str, Any]) -> str:
    """The model card, with the metrics of that checkpoint or, without any, those at the end of the run."""
    summary = run_log.read_summary(folder) if (folder / "summary.json").is_file() else {}
    batches = [f"{rows} rows of {length} tokens" for rows, length in config.batch_shapes]
    facts = {
        "task": type(config.task).__name__.removesuffix("Config"),
        "training data": ", ".join(config.data.train),
        "steps": f"{found['step']:,} of {', then '.join(batches)}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "seed": config.seed,
    }
    if "parameters" in summary:
        facts["parameters"] = f"{summary['parameters']:,}"
    scores = found["metrics"] or summary.get("evaluation") or {}
    return export.model_card(choice, config.name or folder.name, facts, scores)
