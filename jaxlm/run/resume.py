"""Whether a run may go on in its folder with the config that is given, and what of it may have changed."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.checkpoint import store
from jaxlm.config import FinetuneConfig, RunConfig, TrainConfig, files, json_text
from jaxlm.data.reading import is_shards
from jaxlm.run.folder import has_begun, seed_folders
from jaxlm.tasks import Task, config_classes

# These change where and how a run is computed, not what.
_FREE = (
    "mesh",
    "distributed",
    "compute.attention",
    "compute.remat",
    "compute.unroll",
    "compute.flags",
    "checkpoint",
    "data.workers",
    "name",
    "run_dir",
    "log",
    "log_every",
    "sample_every",
    "max_bad_steps",
    "profile",
    "dry_run",
    "export",
)
# These change the steps to come, but neither what a checkpoint contains nor which data come next.
_LATER = (
    "steps",
    "epochs",
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.decay_fraction",
    "optimizer.final_fraction",
    "evaluation",
)


def begun(folder: pathlib.Path, tasks: Sequence[type[Task]] = ()) -> RunConfig | None:
    """The config of the run that has begun in a folder; None: none has, so that the folder may take any config.

    Raises:
        ValueError: it contains the runs of several seeds, or checkpoints whose config is missing.
    """
    path = folder / "config.json"
    if path.exists():
        if has_begun(folder):
            return _read(path, tasks)
        _check_replaceable(path)
        return None
    if seed_folders(folder):
        raise ValueError(
            f"{folder} contains the runs of several seeds: choose another --run-dir, or give --seeds"
        )
    if has_begun(folder):
        raise ValueError(
            f"{folder} has checkpoints but no config.json, so their config is unknown: "
            "restore that file, or choose another --run-dir"
        )
    if is_shards(str(folder)):
        raise ValueError(
            f"{folder}: token shards, whose tokenizer the run would replace: choose another --run-dir"
        )
    return None


def _check_replaceable(path: pathlib.Path) -> None:
    """Raises ValueError if a config.json is that of a model or of another program; what a run left may be damaged."""
    try:
        found = json_text.read(path)
    except ValueError:
        return
    if not isinstance(found, dict) or not {"version", "class"} <= set(found):
        is_model = isinstance(found, dict) and "model_type" in found
        what = "a Hugging Face model" if is_model else "not of a run"
        raise ValueError(f"{path}: {what}, and would be replaced: choose another --run-dir")


def _read(path: pathlib.Path, tasks: Sequence[type[Task]]) -> RunConfig:
    return files.load(path, TrainConfig, FinetuneConfig, tasks=config_classes(tasks))


def with_phases(config: Any, earlier: RunConfig | None) -> Any:
    """The config with the phases of the run that goes on, if it has another number of steps than that run had.

    The ends of phases are often fractions of the steps. Those that the run has passed cannot move any more.
    """
    if earlier is None or any(phase.end is not None for phase in config.phases):
        return config
    if config.epochs == earlier.epochs and (config.epochs or config.steps == earlier.steps):
        return config
    return dataclasses.replace(config, phases=earlier.phases)


def check(folder: pathlib.Path, config: RunConfig, earlier: RunConfig | None) -> str | None:
    """Checks that a run may go on with a config; returns what changes for the steps to come, or None.

    Args:
        folder: of the run.
        config: the resolved one of this call.
        earlier: that of the run so far, see `begun`.

    Raises:
        ValueError: something differs that must not; the message names it.
    """
    if earlier is None:
        return None
    changed = {
        name: values
        for name, values in files.differences(earlier, config).items()
        if not _is_in(name, _FREE)
    }
    later = {name: values for name, values in changed.items() if _is_in(name, _LATER)}
    if fixed := {name: values for name, values in changed.items() if name not in later}:
        raise ValueError(
            f"{folder} contains a run with another config ({files.describe_differences(fixed)}): choose another "
            "--run-dir, or resume with the config of that run; what has begun can change its steps, learning rate, "
            "schedule and evaluation, as nothing else leaves its checkpoints and the order of its data as they are"
        )
    if not later:
        return None
    done = max(store.describe(folder)["steps"], default=0)
    if config.steps < done:
        raise ValueError(
            f"{folder}: the run has done {done:,} steps, more than steps={config.steps:,}: raise it, or choose another "
            "--run-dir"
        )
    if "steps" in later and isinstance(config, FinetuneConfig) and config.unfreeze_over:
        raise ValueError(
            f"{folder}: the number of steps of a run with unfreeze_over cannot change ({_listed(later)}), because "
            "its phases end at fractions of it: choose another --run-dir"
        )
    return f"from step {done + 1:,} on: {_listed(later)}"


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return files.describe_differences(changed)


def _is_in(name: str, fields: Sequence[str]) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in fields)
