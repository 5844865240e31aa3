"""The stages of a run: early on, rows are shorter, or there are fewer of them in a step.

Everything here follows from the config alone, and where the data stands from the step, so that nothing of it has to be
saved. The optimizer does not know of stages: its schedule counts steps.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence

from jaxlm.config import (
    CurriculumConfig,
    ModelConfig,
    RunConfig,
    SpanCorruptionConfig,
    TaskConfig,
    UL2Config,
)
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks import Corpora, Task


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


def stages(config: RunConfig) -> list[Stage]:
    """The stages of a run, in order; a run without a curriculum has one."""
    found: list[Stage] = []
    ends = (*config.curriculum.ends, config.steps)
    for end, (rows, length) in zip(ends, config.batch_shapes):
        own = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, seq_len=length),
            task=_shortened(config.task, length, config.data.seq_len),
            batch_size=rows,
            curriculum=CurriculumConfig(),
        )
        found.append(Stage(found[-1].last + 1 if found else 1, end, own))
    return found


def _shortened(task: TaskConfig, seq_len: int, of: int) -> TaskConfig:
    """The task with its target rows, where the config says how long they are, cut like the rows of the input."""
    if not isinstance(task, SpanCorruptionConfig | UL2Config) or task.target_len is None:
        return task
    return dataclasses.replace(task, target_len=max(3, -(-task.target_len * seq_len // of)))


def build(
    config: RunConfig,
    module: types.ModuleType,
    model: ModelConfig,
    tokenizer: Tokenizer,
    corpora: Corpora,
) -> list[Task]:
    """The task of each stage; stages with rows of the same length share one, and only that of the last validates.

    Args:
        config: the resolved config of the run.
        module: of `tasks.TASKS`.
        model: the backbone.
        tokenizer: with the control tokens that the longest rows need.
        corpora: what `module.load` gave.
    """
    built = {config.data.seq_len: module.build(config, model, tokenizer, corpora)}
    train_only = dataclasses.replace(corpora, validation=None)
    parts = stages(config)
    for stage in parts:
        if stage.seq_len not in built:
            built[stage.seq_len] = module.build(stage.config, model, tokenizer, train_only)
    return [built[stage.seq_len] for stage in parts]


def describe(config: RunConfig, tasks: Sequence[Task]) -> str:
    """The training data for people: a line for the run, or one for each stage."""
    parts = stages(config)
    lines = []
    for stage, task in zip(parts, tasks):
        line = task.train.describe(stage.steps_until(stage.last) * stage.batch_size)
        lines.append(f"{stage}\n  {line}" if len(parts) > 1 else line)
    return "\n".join(lines)


def tokens(parts: Sequence[Stage], step: int) -> int:
    """Tokens, padding included, in all steps up to number `step`."""
    return sum(stage.steps_until(step) * stage.tokens_per_step for stage in parts)


def position(parts: Sequence[Stage], sizes: Sequence[int], step: int) -> tuple[int, int]:
    """What comes after step number `step`: the number of its stage, and of its first example in that stage's data set.

    A stage begins at the share of an epoch that the one before has come to, so that text that has been read is not
    read again soon; with rows of the same length it goes on at the very example. Rows of another length are
    shuffled otherwise: of the epoch in which the length changes some text is read twice and some not at all.

    Args:
        parts: from `stages`.
        sizes: examples in the data set of each stage.
        step: steps done.

    Returns:
        the stage, from 0, and the number of an example of the endless sequence of `data.loader.BatchAt`.
    """
    at = 0
    for number, stage in enumerate(parts):
        if number:
            at = at * sizes[number] // sizes[number - 1]
        at += stage.steps_until(step) * stage.batch_size
        if step < stage.last:
            return number, at
    return len(parts) - 1, at
