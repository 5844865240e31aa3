"""Exports a run to a folder in the Hugging Face layout."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from jaxlm import hf, sharding
from jaxlm.checkpoint import store
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.frames import with_prefix
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import export, peft_export
from jaxlm.models import heads, lora, pretraining
from jaxlm.remote import mirror
from jaxlm.report import run_log
from jaxlm.run import adapters, init_from
from jaxlm.run import folder as run_folder
from jaxlm.tasks import Task, task_class
from jaxlm.training import private_run


def convert(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    max_shard_size: str = "5GB",
    dtype: str = "float32",
    step: run_folder.Step = None,
    adapter: bool = False,
    tasks: Sequence[type[Task]] = (),
) -> str:
    """Writes the model of a run's newest checkpoint, of `step` or of the "best" one; returns a line that describes it.

    The adapters of a run are added to the matrices or, with `adapter`, written alone in the layout of peft.

    Raises:
        ValueError: there is no such run or checkpoint, or transformers has no such model.
    """
    if adapter and (dtype, max_shard_size) != ("float32", "5GB"):
        raise ValueError(
            "an adapter is one small file of float32: --dtype and --max-shard-size are for whole models"
        )
    folder = mirror.local(run)
    config = run_folder.read_config(folder, tasks)
    kind = task_class(config.task, tasks)
    if not kind.reads_text:
        raise ValueError(f"{folder}: transformers has no models of task {kind.name}")
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    task = kind(config, tokenizer)
    # the exported one frames texts as the rows of training were
    tokenizer = dataclasses.replace(tokenizer, frame=task.frame())
    step = run_folder.step_of(folder, step, task)
    model, choice = _exported(task)
    abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = sharding.with_shardings(abstract, single)
    checkpoint = store.describe(folder, step=step)
    card = _card(choice, task, folder, checkpoint)
    if adapter:
        target = adapters.with_stored(folder, target, step=step)
        params = store.load_params(folder, target, step=step)
        _save_adapter(out, config, model, params, choice, card, tokenizer)
        return f"the adapter of step {checkpoint['step']} of {mirror.named(folder)} is in {out}"
    params = adapters.load_merged(folder, target, step=step)
    export.save(
        out,
        model,
        task.export_params(params),
        tokenizer=tokenizer,
        labels=task.labels,
        settings={**with_prefix(task.prefix), **task.export_settings()},
        generation=task.writing(),
        card=card,
        dtype=dtype,
        max_shard_size=max_shard_size,
        embedding=task.embedding,
    )
    return (
        f"{choice.architecture} of step {checkpoint['step']} of {mirror.named(folder)} is in {out}"
    )


def _exported(task: Task) -> tuple[Any, export.Choice]:
    """The model of a task with its class in transformers; a head for pairs of texts is left out if no class has it."""
    model = task.export_model()
    try:
        return model, export.choose(model)
    except ValueError:
        if not isinstance(model, pretraining.SentencePairLM):
            raise
    model = heads.Headless(model.config)
    return model, export.choose(model)


def _save_adapter(
    out: str | os.PathLike,
    config: Any,
    model: Any,
    params: Any,
    choice: export.Choice,
    card: str,
    tokenizer: Tokenizer,
) -> None:
    """Writes the adapters of a run, by the names that its base model has in transformers."""
    if not lora.has_adapters(params):
        raise ValueError(
            "the run has no adapters (its lora.rank is 0): convert it without --adapter"
        )
    family, architecture = choice.family, choice.architecture
    base = config.init.removeprefix(init_from.HUB)
    if hf.is_model(base):
        own = hf.describe(base, backbone_only=True)
        if own.config.vocab_size != model.config.vocab_size:
            raise ValueError(
                f"the run has {model.config.vocab_size} rows in its table of tokens and its base {base} "
                f"{own.config.vocab_size}, so the adapter would not fit it: convert without --adapter"
            )
        kind = family.kind(architecture)
        classes = (own.family.base, *own.family.heads)
        same = [name for name in classes if own.family.kind(name) == kind]
        if same:
            family, architecture = own.family, same[0]
    trained = lora.trained_whole(params, config.lora.train)
    peft_export.save(
        out,
        family,
        architecture,
        params,
        base=base,
        trained=trained,
        card=card,
        # it may have a chat template that the base lacks
        write_more=lambda folder: export.write_tokenizer(
            folder, choice, tokenizer, model.config.max_len
        ),
    )


def _card(
    choice: export.Choice, task: Task, folder: pathlib.Path, checkpoint: dict[str, Any]
) -> str:
    """The model card, with the metrics of the checkpoint or, if it has none, those at the end of the run."""
    config = task.config
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
    if config.privacy.is_on:
        facts["privacy"] = private_run.statement(folder, checkpoint["step"])
    scores = checkpoint["metrics"] or summary.get("evaluation") or {}
    library: export.Library = "transformers" if task.embedding is None else "sentence-transformers"
    return export.model_card(choice, config.name or folder.name, facts, scores, library=library)
