"""The loop that pretraining and fine-tuning share: compile, resume, step, look, save, sum up."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.config import RunConfig, files
from jaxlm.data.loader import BatchAt, Loader
from jaxlm.models import heads
from jaxlm.nn.layers import compute_dtype
from jaxlm.tasks import Task
from jaxlm.training import (
    batches,
    curriculum,
    flops,
    optimizer,
    overview,
    processes,
    report,
)
from jaxlm.training.checkpoint import CheckpointError, Checkpoints
from jaxlm.training.evaluate import totals
from jaxlm.training.state import TrainState, abstract_state, create_state
from jaxlm.training.step import make_eval_step, make_train_step


@dataclasses.dataclass
class Progress:
    """What must survive a restart besides arrays; a JSON item of every checkpoint."""

    # best value of the task's metric so far, and the step it was seen at
    best: float | None = None
    best_step: int = 0
    # evaluations since then
    stale: int = 0
    # metrics of the last evaluation
    evaluation: dict[str, float] = dataclasses.field(default_factory=dict)
    # steps whose loss or gradient was not finite: in all, and in a row
    skipped: int = 0
    bad_in_a_row: int = 0
    # spent in all sessions of this run
    seconds: float = 0.0


class Diverged(RuntimeError):
    """Too many steps in a row were not finite."""

    exit_code = 1


def fit(
    config: RunConfig,
    tasks: Sequence[Task],
    folder: pathlib.Path,
    load: Callable[[Any], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Trains to the end, or from the newest checkpoint of `folder` to the end; returns the summary.

    Args:
        config: the resolved config.
        tasks: what to learn in each stage, from `curriculum.build`.
        folder: the run folder, claimed by the caller.
        load: from the abstract parameters to the parts of them to start from (backbone, head); None: all random.

    Raises:
        ValueError: mesh, batch or checkpoint do not fit.
        processes.Stopped: a signal asked to stop; all is saved.
        Diverged: `max_bad_steps` in a row were not finite.
    """
    mesh = sharding.make_mesh(config.mesh)
    batches.check_batch_size(config, mesh)
    with jax.set_mesh(mesh), processes.StopRequest() as stop:
        return _Run(config, tasks, folder, mesh, stop).fit(load)


class _Run:
    """One session of a run: everything that stays the same from step to step."""

    def __init__(
        self, config, tasks: Sequence[Task], folder, mesh: Mesh, stop: processes.StopRequest
    ):
        self.config, self.folder, self.mesh, self.stop = config, folder, mesh, stop
        self.stages, self.tasks = curriculum.stages(config), tasks
        # evaluations and samples are those of the last stage all along, so that they compare
        self.task = tasks[-1]
        self.init = functools.partial(heads.init_params, self.task.model)
        params = jax.eval_shape(self.init, jax.random.key(0))
        self.optimizer = optimizer.make_optimizer(config, params)
        self.schedule = optimizer.make_schedule(config.optimizer, config.steps)
        self.abstract = abstract_state(self.init, self.optimizer, mesh)
        self.progress = Progress()
        # the last evaluation laid out for people, where the task has more than a line
        self.rendered: str | None = None
        self.is_main = jax.process_index() == 0

    def fit(self, load) -> dict[str, Any]:
        """See the function of the same name."""
        steps, self.compile_seconds = self._compile()
        if self.config.dry_run:
            return {"dry_run": True, **self.memory}
        with Checkpoints(
            self.folder / "checkpoints",
            self.config.checkpoint,
            best_metric=self.task.metric,
            best_is_lower=self.task.metric_is_lower,
        ) as self.checkpoints:
            state, start = self._start(load)
            if self._is_complete(start):
                print(f"{self.folder}: this run is complete at step {start}; nothing to do")
                return report.read_summary(self.folder)
            self.log = report.RunLog(
                self.folder, total_steps=self.config.steps, is_main=self.is_main, start_step=start
            )
            if start:
                self.log.note(f"going on from step {start}")
            try:
                return self._finish(*self._loop(steps, state, start))
            finally:
                self.log.close()

    def _compile(self):
        """The compiled step of each stage, after printing what they will do; several processes wait for each other."""
        began = time.perf_counter()
        placement = jax.tree.map(lambda x: x.sharding, self.abstract)
        everywhere = NamedSharding(self.mesh, P())
        results = (placement, everywhere)
        # all before the first step: what does not fit shows at once, and nothing is compiled later
        compiled = [self._compiled(*part, results) for part in zip(self.stages, self.tasks)]
        seconds = time.perf_counter() - began
        self.eval_step = jax.jit(make_eval_step(self.task.loss), out_shardings=everywhere)
        self.averages = None
        if optimizer.keeps_average(self.config.optimizer):
            average = lambda state: optimizer.evaluation_params(state.opt_state, state.params)
            self.averages = jax.jit(average, out_shardings=placement.params)
        self._describe(compiled)
        if jax.process_count() > 1:
            # gloo's reductions give up after 30 s of skew, and compile times differ by more
            multihost_utils.sync_global_devices("compiled")
        return compiled, seconds

    def _compiled(self, stage: curriculum.Stage, task: Task, results):
        """The step of a stage, compiled; `results` says where its results lie."""
        frozen = optimizer.frozen(self.config, self.abstract.params)
        train_step = make_train_step(
            task.loss,
            self.optimizer,
            seed=self.config.seed,
            accumulate=self.config.accumulate,
            frozen=frozen if any(jax.tree.leaves(frozen)) else None,
        )
        batch = batches.abstract_batch(self._first_row(task), self.mesh, stage.batch_size)
        jitted = jax.jit(train_step, donate_argnums=0, out_shardings=results)
        return jitted.lower(self.abstract, batch).compile()

    def _first_row(self, task: Task) -> dict[str, np.ndarray]:
        """What stands first in the first batch of a data set."""
        return BatchAt(task.train, 1, self.config.seed)(0)

    def _describe(self, compiled) -> None:
        """Prints parameters, memory, FLOPs and the first row of the first batch."""
        last = self.stages[-1]
        self.memory = max(map(overview.memory, compiled), key=lambda m: sum(m.values()))
        if not self.is_main:
            return
        overview.start_table(
            self.abstract.params,
            tokens_per_step=last.tokens_per_step,
            total_tokens=curriculum.tokens(self.stages, last.last),
            flops_per_step=flops.of_task(self.task, last.seq_len) * last.tokens_per_step,
            stages=self.stages,
            mesh=dict(self.mesh.shape),
            dtypes=f"parameters float32, compute {compute_dtype(self.config.compute)}",
            memory=self.memory,
            run_dir=self.folder,
        )
        row = {name: x[0] for name, x in self._first_row(self.tasks[0]).items()}
        overview.batch_preview(self.task.preview(row))

    def _start(self, load) -> tuple[TrainState, int]:
        """The state to go on from, and its step: the newest checkpoint's, or a fresh one."""
        target = {
            "params": self.abstract.params,
            "opt_state": self.abstract.opt_state,
            "step": None,
            "data": None,
            "progress": None,
        }
        found = self.checkpoints.restore(target)
        if found is None:
            params = None if load is None else self._started_from(load)
            state = create_state(self.init, self.optimizer, self.abstract, self.config.seed, params)
            return state, 0
        step, items = found
        stored, here = items["data"], self._data_state(step)
        if stored != here:
            raise ValueError(
                f"{self.folder}: the training data is not what it was at step {step} "
                f"({stored} then, {here} now): bring it back, or start in another folder"
            )
        self.progress = Progress(**items["progress"])
        number = jax.device_put(np.int32(step), self.abstract.step.sharding)
        return TrainState(number, items["params"], items["opt_state"]), step

    def _is_complete(self, step: int) -> bool:
        """Whether the run had come to its end before, by its last step or by early stopping."""
        ended = step >= self.config.steps or self._has_stalled()
        return ended and (self.folder / "summary.json").is_file()

    def _has_stalled(self) -> bool:
        patience = self.config.evaluation.patience
        return patience is not None and self.progress.stale >= patience

    def _started_from(self, load) -> Any:
        """What is loaded, and fresh parameters for the rest; XLA drops the random ones that nothing reads."""
        abstract = self.abstract.params
        loaded = load(abstract)
        rest = {name: tree for name, tree in abstract.items() if name not in loaded}
        if not rest:
            return loaded
        place = jax.tree.map(lambda x: x.sharding, rest)
        make = jax.jit(
            lambda key: {name: self.init(key)[name] for name in rest}, out_shardings=place
        )
        key = jax.random.fold_in(jax.random.key(self.config.seed), 0)
        return {**make(key), **loaded}

    def _data_state(self, step: int) -> dict[str, int]:
        """Where the data stands: enough to go on with any number of processes, and to notice that it is other data."""
        number, example = self._position(step)
        return {"next_example": example, "examples": len(self.tasks[number].train)}

    def _position(self, step: int) -> tuple[int, int]:
        """The stage and the example that come after a step."""
        return curriculum.position(self.stages, [len(task.train) for task in self.tasks], step)

    def _loop(self, compiled, state: TrainState, start: int) -> tuple[TrainState, int]:
        """All steps that are left, stage by stage."""
        self.began = time.perf_counter() - self.progress.seconds
        step = start
        for number in range(self._position(start)[0], len(self.stages)):
            state, step, enough = self._stage(number, compiled[number], state, step)
            if enough:
                break
        return state, step

    def _stage(
        self, number: int, compiled, state: TrainState, start: int
    ) -> tuple[TrainState, int, bool]:
        """The steps that are left of a stage, and whether to stop early.

        The metrics of a step are fetched when the next one is on its way; only the last step of a stage is waited for.
        """
        stage, task = self.stages[number], self.tasks[number]
        self.throughput = report.Throughput(stage.tokens_per_step)
        self.flops_per_token = flops.of_task(task, stage.seq_len)
        rows = batches.local_rows(stage.batch_size, self.mesh)
        loader = Loader(
            task.train,
            batch_size=stage.batch_size,
            seed=self.config.seed,
            rows=rows,
            workers=self.config.data.workers,
            start=self._position(start)[1],
        )
        pending = None
        step, enough = start, False
        try:
            for step in range(start + 1, stage.last + 1):
                batch = batches.to_devices(next(loader), self.mesh, stage.batch_size, rows)
                state, metrics = compiled(state, batch)
                if pending is not None:
                    self._record(step - 1, pending)
                pending = metrics
                stopping = self.stop.reached(step)
                if stopping or step == stage.last or self._is_due(step):
                    self._record(step, pending)
                    pending = None
                    enough = self._look_and_save(step, state, stopping)
                    if stopping:
                        raise processes.Stopped(step, self.stop.exit_code, str(self.folder))
                    if enough:
                        break
        finally:
            loader.close()
        return state, step, enough

    def _is_due(self, step: int) -> bool:
        """Whether anything but the step itself happens at this step; the last step of a stage is not asked about."""
        c = self.config
        intervals = [c.evaluation.every, c.checkpoint.every, c.sample_every]
        return any(every and step % every == 0 for every in intervals)

    def _record(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Counts the step, and logs it if it is its turn."""
        values = jax.device_get(metrics)
        self.throughput.step()
        p = self.progress
        if values["skipped"]:
            p.skipped, p.bad_in_a_row = p.skipped + 1, p.bad_in_a_row + 1
            self.log.note(f"step {step}: loss or gradient is not finite; step skipped")
            if p.bad_in_a_row >= self.config.max_bad_steps:
                raise Diverged(
                    f"{p.bad_in_a_row} steps in a row were not finite, the last one step {step}: lower "
                    "optimizer.learning_rate or look at the data; these steps changed no weight"
                )
        else:
            p.bad_in_a_row = 0
        if step % self.config.log_every and step not in (1, self.config.steps):
            return
        speed = self.throughput.tokens_per_second
        kind = jax.devices()[0].device_kind
        measured = {
            **self.task.summarize(values),
            "learning_rate": float(self.schedule(step - 1)),
            "grad_norm": float(values["grad_norm"]),
            "tokens_per_second": speed,
            "mfu": flops.mfu(speed, self.flops_per_token, self.mesh.size, kind),
            "skipped": p.skipped or None,
        }
        self.log.step(step, measured)

    def _look_and_save(self, step: int, state: TrainState, stopping: bool) -> bool:
        """Evaluation, sample and checkpoint, as far as due; True when it is time to stop early."""
        c = self.config
        with self.throughput.paused():
            last = step == c.steps
            metrics, better = None, False
            if not stopping and self.task.validation and (last or step % c.evaluation.every == 0):
                metrics = self.evaluate(state)
                better = self._judge(step, metrics)
                self.log.evaluation(step, metrics)
            if self.task.sample and (last or (c.sample_every and step % c.sample_every == 0)):
                params = optimizer.evaluation_params(state.opt_state, state.params)
                self.log.sample(step, self.task.sample(params, jax.random.key(step)))
            enough = self._has_stalled()
            save_best = better and c.checkpoint.keep_best
            if stopping or last or enough or save_best or step % c.checkpoint.every == 0:
                self._save(step, state, metrics, wait=stopping or last or enough)
        return enough

    def _judge(self, step: int, metrics: dict[str, float]) -> bool:
        """Notes whether this evaluation is the best so far."""
        p, value = self.progress, metrics[self.task.metric]
        p.evaluation = metrics
        better = p.best is None or (value < p.best if self.task.metric_is_lower else value > p.best)
        if better:
            p.best, p.best_step, p.stale = value, step, 0
        else:
            p.stale += 1
        return better

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics over the validation data."""
        c = self.config
        assert self.task.validation is not None
        score = functools.partial(self.eval_step, state)
        sums = totals(
            score, self.task.validation, c.batch_size, self.mesh, limit=c.evaluation.batches
        )
        self.rendered = self.task.render(sums) if self.task.render else None
        return self.task.summarize(sums)

    def _save(self, step: int, state: TrainState, metrics, wait: bool) -> None:
        self.progress.seconds = time.perf_counter() - self.began
        items = {
            "params": state.params,
            "opt_state": state.opt_state,
            "step": step,
            "config": {"version": files.VERSION, **files.to_dict(self.config)},
            "data": self._data_state(step),
            "progress": dataclasses.asdict(self.progress),
        }
        if self.averages:
            items["average"] = self.averages(state)
        self.checkpoints.save(step, items, metrics=metrics, wait=wait)
        if wait and step not in (saved := self.checkpoints.steps()):
            raise CheckpointError(
                f"{self.folder}: step {step} could not be saved; the newest checkpoint is "
                f"{max(saved, default='none')}: make room and run the same command again"
            )

    def _finish(self, state: TrainState, step: int) -> dict[str, Any]:
        """summary.json, curves and the last table."""
        p = self.progress
        summary = {
            "name": self.config.name,
            "run_dir": str(self.folder),
            "task": type(self.config.task).__name__,
            "steps": step,
            "seed": self.config.seed,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "evaluation": p.evaluation,
            "best": {"step": p.best_step, self.task.metric: p.best} if p.best is not None else {},
            "skipped_steps": p.skipped,
            "tokens": curriculum.tokens(self.stages, step),
            "tokens_per_second": self.throughput.tokens_per_second,
            "wall_seconds": time.perf_counter() - self.began,
            "compile_seconds": self.compile_seconds,
            "device_kind": jax.devices()[0].device_kind,
            "num_devices": jax.device_count(),
            "num_processes": jax.process_count(),
            "jax": jax.__version__,
            "memory": self.memory,
        }
        if self.rendered is not None:
            self.log.note(self.rendered)
        self.log.finish(summary)
        return summary
