"""A model's config with what the caller of `evaluate`, `predict` or `report` wants otherwise."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from jaxlm.data.columns import Column
from jaxlm.tasks import Task
from jaxlm.tasks.task import Purpose
from jaxlm.training import batches


def override(
    kind: type[Task],
    config: Any,
    *,
    batch_size: int | None,
    seq_len: int | None,
    columns: Mapping[str, str | None],
    on_bad_row: str | None,
    mesh: Mesh,
    settings: Mapping[str, Any],
    purpose: Purpose = "validation",
) -> Any:
    """The config with what the caller wants otherwise, for this purpose."""
    config = with_settings(kind, config, settings, purpose)
    data: Any = {} if seq_len is None else {"seq_len": seq_len}
    if seq_len is not None and not 2 <= seq_len <= config.model.max_len:
        raise ValueError(f"seq_len={seq_len} is out of range: 2 to {config.model.max_len}")
    if on_bad_row is not None:
        data["on_bad_row"] = on_bad_row
    of_task: dict[str, Any] = {}
    named = kind.columns(config, "validation")
    for role, column in columns.items():
        if column is None:
            continue
        where = _field_of(role, kind, config, named)
        (data if where[0] == "data" else of_task)[where[1]] = column
    config = dataclasses.replace(
        config,
        batch_size=config.batch_size if batch_size is None else batch_size,
        data=dataclasses.replace(config.data, **data),
        task=dataclasses.replace(config.task, **of_task),
    )
    batches.check_sizes(config, mesh)
    return config


def with_settings(
    kind: type[Task], config: Any, settings: Mapping[str, Any], purpose: Purpose
) -> Any:
    """The config with other settings of its task, of those that mean something for this purpose after training."""
    for name in settings:
        if name not in kind.adjustable:
            has = ", ".join(kind.adjustable) or "none"
            raise ValueError(
                f"task {kind.name} has no setting {name!r} that can be changed after training; it has {has}"
            )
        if purpose not in kind.adjustable[name]:
            made = "predictions" if purpose == "predict" else "an evaluation"
            raise ValueError(f"task.{name} has no effect on {made} of task {kind.name}")
    return dataclasses.replace(config, task=kind.adjust(config.task, settings, purpose))


def _field_of(
    role: str, kind: type[Task], config: Any, named: Mapping[str, Column]
) -> tuple[str, str]:
    """The field that names the column of a role: ("data" or "task", field)."""
    if role in named and named[role].option is not None:
        part, _, field = str(named[role].option).partition(".")
        return part, field.replace("-", "_")
    for part in ("task", "data"):
        for field in (role, f"{role}_column"):
            if field.endswith("_column") and hasattr(getattr(config, part), field):
                return part, field
    known = dict.fromkeys([*named, "pair"] if "text" in named else named or ["text"])
    near = difflib.get_close_matches(role, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"its columns are {', '.join(known)}"
    raise ValueError(f"task {kind.name} reads no column {role!r}; {hint}")
