"""The stages of a run: early on, rows are shorter, or there are fewer of them in a step.

Everything here is a function of the config, and the position in the data one of the step, so nothing of it has to be
saved. The optimizer does not know of stages: its schedule counts steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.config import CurriculumConfig, RunConfig
from jaxlm.data.corpora import Corpora
from jaxlm.data.loader import Dataset
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.task import Task, dataset


@dataclasses.dataclass(frozen=True)
class Stage:
    """Steps in a row whose batches have the same shape."""

    # numbers of its first and last step; the first of a run is 1
    first: int
    last: int
    # that of the run, with the length and number of rows that these steps have
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
        """Over all devices."""
        return self.batch_size * self.seq_len

    def steps_until(self, step: int) -> int:
        """How many of its steps are done after step number `step` of the run."""
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
    """What a run does: its stages, and the task and training rows of each."""

    stages: tuple[Stage, ...]
    # stages with rows of the same length share them
    tasks: tuple[Task, ...]
    train: tuple[Dataset, ...]
    # of the last task
    validation: Dataset | None
    # where those rows came from: records for `Task.score`
    validation_data: Any = None

    @property
    def task(self) -> Task:
        """The task of the last stage, which evaluates and writes samples all along, so that they can be compared."""
        return self.tasks[-1]

    def describe(self) -> str:
        """The training data for people: a line for the run, or one for each stage."""
        lines = []
        for stage, rows in zip(self.stages, self.train):
            line = rows.describe(stage.steps_until(stage.last) * stage.batch_size)
            lines.append(f"{stage}\n  {line}" if len(self.stages) > 1 else line)
        return "\n".join(lines)

    def position(self, step: int) -> tuple[int, int]:
        """See the function of the same name."""
        return position(self.stages, [len(rows) for rows in self.train], step)


def build(config: RunConfig, task: type[Task], tokenizer: Tokenizer, corpora: Corpora) -> Plan:
    """The plan of a run from its resolved config, its tokenizer (with the task's control tokens) and its data."""
    parts = stages(config, task)
    tasks: dict[int, Task] = {}
    train: dict[int, Dataset] = {}
    # the longest rows first: what is wrong with them is said first
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


def tokens(parts: Sequence[Stage], step: int) -> int:
    """Tokens, padding included, in all steps up to a step."""
    return sum(stage.steps_until(step) * stage.tokens_per_step for stage in parts)


def position(parts: Sequence[Stage], sizes: Sequence[int], step: int) -> tuple[int, int]:
    """What comes after a step: the index of its stage, and of its first example in that stage's data set.

    A stage begins at the fraction of an epoch that the one before has reached, so that recent text is not read again
    soon; with rows of the same length it goes on at the very next example. Rows of another length are shuffled in
    another order: of the epoch in which the length changes some text is read twice and some not at all.

    Args:
        parts: from `stages`.
        sizes: examples in the data set of each stage.
        step: steps done.

    Returns:
        the index of the stage, and the index of an example of the endless sequence of `data.loader.BatchAt`.
    """
    example = 0
    for index, stage in enumerate(parts):
        if index:
            example = example * sizes[index] // sizes[index - 1]
        example += stage.steps_until(step) * stage.batch_size
        if step < stage.last:
            return index, example
    return len(parts) - 1, example
