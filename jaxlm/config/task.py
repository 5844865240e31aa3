"""The base class of a task's settings. The settings themselves stand beside their tasks in `jaxlm.tasks`."""

from __future__ import annotations

import dataclasses

from jaxlm.config.values import check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Settings of a task. A subclass's name is the `class` in a config.json, by which the task is found."""

    def __post_init__(self):
        check_values(self, "task")

    def check_fractions(self, *names: str) -> None:
        """Raises ValueError unless these fields are in [0, 1]."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"task.{name}={getattr(self, name)} is not in [0, 1]")

    def check_between_0_and_1(self, *names: str) -> None:
        """Raises ValueError unless these fields are in (0, 1)."""
        for name in names:
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"task.{name}={getattr(self, name)} is not between 0 and 1")
