"""The stages of a run: early stages have shorter rows, or fewer rows per step.

Everything here is a function of the config, and the position in the data is a function of the step, so none of it has
to be saved. The optimizer is independent of stages: its schedule counts steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.config import CurriculumConfig, RunConfig
from jaxlm.data.corpora import Corpora
from jaxlm.data.loader import Dataset, Loader
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.task import Task, dataset
from jaxlm.training.private_run import PrivateRun


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive steps whose batches have the same shape."""

    # its first and last step; the first step of a run is 1
    first: int
    last: int
    # the config of the run, with the row length and batch size of these steps
    config: RunConfig

    @property
    def batch_size(self) -> int:
        """Rows in a step, over all devices."""
        return self.config.batch_size

    @property
    def seq_len(self) -> int:
        """Tokens in a row."""
        return self.config.data.seq_len

    @property
    def tokens_per_step(self) -> int:
        """Tokens per step, over all devices."""
        return self.batch_size * self.seq_len

    def steps_until(self, step: int) -> int:
        """How many of its steps are done after `step` of the run."""
        return max(min(step, self.last) - self.first + 1, 0)

    def __str__(self) -> str:
        rows = f"{self.batch_size:,} rows of {self.seq_len:,} tokens"
        return f"steps {self.first:,} to {self.last:,}: {rows}"


def stages(config: RunConfig, task: type[Task]) -> list[Stage]:
    """The stages of a run, in order; a run without a curriculum has one."""
    out: list[Stage] = []
    ends = (*config.curriculum.ends, config.steps)
    for end, (rows, length) in zip(ends, config.batch_shapes):
        own = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, seq_len=length),
            task=task.shorten(config.task, length, config.data.seq_len),
            batch_size=rows,
            curriculum=CurriculumConfig(),
        )
        out.append(Stage(out[-1].last + 1 if out else 1, end, own))
    return out


@dataclasses.dataclass(frozen=True)
class Plan:
    """The stages of a run, with the task and training rows of each, and the validation rows."""

    stages: tuple[Stage, ...]
    # stages with rows of the same length share them
    tasks: tuple[Task, ...]
    train: tuple[Dataset, ...]
    # rows of the last task
    validation: Dataset | None
    # the data that the validation rows are made from: records for `Task.score`
    validation_data: Any = None
    # in private training: the batches of it, and their noise
    private: PrivateRun | None = None

    @property
    def task(self) -> Task:
        """The task of the last stage, which evaluates and samples in all stages, so that results are comparable."""
        return self.tasks[-1]

    def describe(self) -> str:
        """A description of the training data: one line for the run, or one per stage."""
        lines = []
        for stage, rows in zip(self.stages, self.train):
            line = rows.describe(stage.steps_until(stage.last) * stage.batch_size)
            lines.append(f"{stage}\n  {line}" if len(self.stages) > 1 else line)
        return "\n".join(lines)

    def rows_per_step(self, stage: int) -> int:
        """Leading dim of the batches of a stage, over all devices."""
        return self.stages[stage].batch_size if self.private is None else self.private.slots

    def loader(self, stage: int, step: int, *, seed: int, rows: np.ndarray, workers: int) -> Loader:
        """The batches of a stage after a step, of which this process has the rows `rows`."""
        if self.private is not None:
            return Loader.of(self.private.batch_at(rows, step), workers)
        return Loader(
            self.train[stage],
            batch_size=self.stages[stage].batch_size,
            seed=seed,
            rows=rows,
            workers=workers,
            start=self.position(step)[1],
        )

    def position(self, step: int) -> tuple[int, int]:
        """The index of the stage and of the example after a step, see the function of the same name."""
        return position(self.stages, [len(rows) for rows in self.train], step)

    def data_position(self, step: int) -> dict[str, int]:
        """The position in the data after a step, to resume on any number of processes and to detect changed data."""
        index, example = self.position(step)
        return {"next_example": example, "examples": len(self.train[index])}


def build(
    config: RunConfig, task: type[Task], tokenizer: Tokenizer | None, corpora: Corpora
) -> Plan:
    """The plan of a run from its resolved config, its data and, if there is one, its tokenizer (with the task's control
    tokens)."""
    parts = stages(config, task)
    tasks: dict[int, Task] = {}
    train: dict[int, Dataset] = {}
    # the longest rows first, so that their errors are reported first
    for stage in sorted(parts, key=lambda stage: -stage.seq_len):
        if stage.seq_len not in tasks:
            whole = stage.seq_len == config.data.seq_len
            tasks[stage.seq_len] = task(config if whole else stage.config, tokenizer)
            train[stage.seq_len] = dataset(tasks[stage.seq_len], corpora.train, "train")
    lengths = [stage.seq_len for stage in parts]
    held_out = corpora.validation
    return Plan(
        stages=tuple(parts),
        tasks=tuple(tasks[n] for n in lengths),
        train=tuple(train[n] for n in lengths),
        validation=None
        if held_out is None
        else dataset(tasks[lengths[-1]], held_out, "validation"),
        validation_data=held_out,
    )


def with_config(
    plan: Plan, config: RunConfig, task: type[Task], tokenizer: Tokenizer | None
) -> Plan:
    """The plan of a run without a curriculum, with the same rows and another number of steps."""
    (only,) = stages(config, task)
    return dataclasses.replace(plan, stages=(only,), tasks=(task(config, tokenizer),))


def tokens(parts: Sequence[Stage], step: int) -> int:
    """Tokens, padding included, in all steps up to a step."""
    return sum(stage.steps_until(step) * stage.tokens_per_step for stage in parts)


def position(parts: Sequence[Stage], sizes: Sequence[int], step: int) -> tuple[int, int]:
    """The position in the data after a step: the index of the stage, and of the next example in the stage's data set.

    A stage begins at the fraction of an epoch that the previous stage has reached, so that recent text is not repeated
    soon; with rows of the same length it continues with the next example. Rows of another length are shuffled in
    another order: in the epoch in which the length changes, some text is read twice and some not at all.

    Args:
        parts: from `stages`.
        sizes: examples in the data set of each stage.
        step: steps done.

    Returns:
        the index of the stage, and the index of an example in the endless sequence of `data.loader.BatchAt`.
    """
    example = 0
    for index, stage in enumerate(parts):
        if index:
            example = example * sizes[index] // sizes[index - 1]
        example += stage.steps_until(step) * stage.batch_size
        if step < stage.last:
            return index, example
    return len(parts) - 1, example
