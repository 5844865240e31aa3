"""Hooks that run between steps: evaluation, samples, checkpoints. Each defines after which steps it is due."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Protocol

import jax
import numpy as np

from jaxlm.checkpoint.store import CheckpointError
from jaxlm.config import files
from jaxlm.data import counter
from jaxlm.data.loader import Dataset
from jaxlm.data.records import Records
from jaxlm.remote import mirror
from jaxlm.tasks import task as tasks
from jaxlm.tasks.task import Task
from jaxlm.training import predictions
from jaxlm.training.session import Session
from jaxlm.training.state import TrainState
from jaxlm.training.step import evaluation_context
from jaxlm.training.totals import totals


@dataclasses.dataclass
class Moment:
    """The situation after a step; hooks read it, and record their results in it for later hooks."""

    step: int
    state: TrainState
    phase: int
    # the last step of the run
    last: bool
    # whether a signal requested to save and stop
    stopping: bool
    # metrics of the evaluation after this step, if there was one, and whether they are the best so far
    metrics: dict[str, float] | None = None
    best: bool = False
    # whether early stopping ends the run
    enough: bool = False


class Hook(Protocol):
    """An action after some of the steps."""

    def due(self, step: int) -> bool:
        """Whether it is due after this step, apart from the last step and a stop."""
        ...

    def __call__(self, moment: Moment) -> None:
        """Acts if due; called after every step at which any hook is due."""
        ...


class Evaluate:
    """Evaluates on the validation data, records the best result, and decides on early stopping."""

    def __init__(self, session: Session):
        """A hook of a session; without validation data it does nothing."""
        self.session = session
        self.every = session.config.evaluation.every
        # the last evaluation as a table, if the task has one
        self.rendered: str | None = None
        # rows and records that are predicted during training; None: all
        self.sample = self._sample()

    def due(self, step: int) -> bool:
        """Every `evaluation.every` steps."""
        return step % self.every == 0

    def __call__(self, moment: Moment) -> None:
        """Evaluates unless the run is about to stop."""
        s = self.session
        due = (moment.last or self.due(moment.step)) and not moment.stopping
        if s.plan.validation is not None and due:
            task = s.plan.task
            moment.metrics = self._evaluate(task, s.plan.validation, moment)
            moment.best = s.progress.evaluated(
                moment.step, moment.metrics, task.metric, task.lower_is_better
            )
        moment.enough = s.progress.has_stalled(s.config.evaluation.patience)
        if moment.metrics is not None:
            if self.sample is not None and (moment.last or moment.enough):
                moment.metrics |= self._score_all(moment)
            if s.plan.task.diagnoses() and (moment.last or moment.enough):
                self._diagnose(moment.metrics, moment)
            s.log.evaluation(moment.step, moment.metrics)

    def _evaluate(self, task: Task, rows: Dataset, moment: Moment) -> dict[str, float]:
        s = self.session
        score = s.programs.evaluation(moment.phase)
        sums = totals(
            lambda batch: score(moment.state, batch, s.reference),
            rows,
            s.config.batch_size,
            s.mesh,
            limit=s.config.evaluation.batches,
        )
        self.rendered = task.render(sums["sums"])
        metrics = tasks.metrics(task, sums)
        if task.scores() and self.sample is not None:
            scores = self._score(*self.sample, moment)
            metrics |= {f"sample_{name}": value for name, value in scores.items()}
        elif task.scores():
            limit = s.config.evaluation.batches
            metrics |= self._score(rows, s.plan.validation_data, moment, limit)
        return metrics

    def _sample(self) -> tuple[Dataset, Records] | None:
        plan = self.session.plan
        size = plan.task.scored_sample()
        if plan.validation is None or size is None:
            return None
        records = plan.validation_data
        if size >= len(records):
            return plan.validation, records
        # a fixed random sample: the first records of a file may all be of one kind
        chosen = counter.permute(np.arange(size), len(records), 0)
        records = records.take(np.sort(chosen).tolist())
        return tasks.dataset(plan.task, records, "validation"), records

    def _score_all(self, moment: Moment) -> dict[str, float]:
        s = self.session
        if self.sample is not None and self.sample[0] is s.plan.validation:
            assert moment.metrics is not None
            names = [name for name in moment.metrics if name.startswith("sample_")]
            return {name.removeprefix("sample_"): moment.metrics[name] for name in names}
        return self._score(s.plan.validation, s.plan.validation_data, moment)

    def _score(
        self, rows: Any, records: Any, moment: Moment, limit: int | None = None
    ) -> dict[str, float]:
        """The task's metrics of its predictions."""
        s = self.session
        return predictions.score(
            s.plan.task,
            s.programs.prediction(),
            s.use_params(moment.state, moment.phase),
            rows,
            records,
            batch_size=s.config.batch_size,
            mesh=s.mesh,
            limit=limit,
        )

    def _diagnose(self, metrics: dict[str, float], moment: Moment) -> None:
        """Adds the task's diagnostics to the metrics, and logs what they mean."""
        s = self.session
        task, rows = s.plan.task, s.plan.validation
        assert rows is not None
        metrics |= predictions.diagnose(
            task,
            s.programs.analysis(),
            s.use_params(moment.state, moment.phase),
            rows,
            evaluation_context(
                moment.state.step, s.reference, moment.state.task_state, moment.phase
            ),
            metrics,
            batch_size=s.config.batch_size,
            mesh=s.mesh,
        )
        if (verdict := task.verdict(metrics)) is not None:
            s.log.note(verdict)


class Sample:
    """Logs a sample of generated text."""

    def __init__(self, session: Session):
        """A hook of a session."""
        self.session = session
        self.every = session.config.sample_every

    def due(self, step: int) -> bool:
        """Every `sample_every` steps; 0: only after the last one."""
        return bool(self.every) and step % self.every == 0

    def __call__(self, moment: Moment) -> None:
        """Logs the sample, if the task has one."""
        if moment.last or self.due(moment.step):
            s = self.session
            params = s.use_params(moment.state, moment.phase)
            text = s.plan.task.sample(params, jax.random.key(moment.step))
            if text is not None:
                s.log.sample(moment.step, text)


class Save:
    """Saves a checkpoint; waits for it if the run ends."""

    def __init__(self, session: Session):
        """A hook of a session."""
        self.session = session
        self.every = session.config.checkpoint.every

    def due(self, step: int) -> bool:
        """Every `checkpoint.every` steps."""
        return step % self.every == 0

    def __call__(self, moment: Moment) -> None:
        """Saves if due, if the evaluation was the best so far, or if the run ends."""
        s = self.session
        ends = moment.stopping or moment.last or moment.enough
        best = moment.best and s.config.checkpoint.keep_best
        if not (ends or best or self.due(moment.step)):
            return
        s.progress.seconds = time.perf_counter() - s.began
        items: dict[str, Any] = {
            "params": moment.state.params,
            "opt_state": moment.state.opt_state,
            "step": moment.step,
            "config": {"version": files.VERSION, **files.to_dict(s.config)},
            "data": s.plan.data_position(moment.step),
            "progress": dataclasses.asdict(s.progress),
        }
        if moment.state.task_state is not None:
            items["task_state"] = moment.state.task_state
        if (averages := s.programs.averages(moment.phase)) is not None:
            items["average"] = averages(moment.state)
        s.checkpoints.save(moment.step, items, metrics=moment.metrics, wait=ends)
        if ends and moment.step not in (saved := s.checkpoints.steps()):
            raise CheckpointError(
                f"{mirror.named(s.folder)}: step {moment.step} could not be saved; the newest checkpoint is "
                f"{max(saved, default='none')}: free some space and run the same command again"
            )
