"""The loop that pretraining and fine-tuning share: compile, resume, step, look, save, sum up."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
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
from jaxlm.training import batches, flops, optimizer, overview, processes, report
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


def fit(
    config: RunConfig,
    task: Task,
    folder: pathlib.Path,
    load: Callable[[Any], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Trains to the end, or from the newest checkpoint of `folder` to the end; returns the summary.

    Args:
        config: the resolved config.
        task: what to learn.
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
        return _Run(config, task, folder, mesh, stop).fit(load)


class _Run:
    """One session of a run: everything that stays the same from step to step."""

    def __init__(self, config, task: Task, folder, mesh: Mesh, stop: processes.StopRequest):
        self.config, self.task, self.folder, self.mesh, self.stop = config, task, folder, mesh, stop
        self.rows = batches.local_rows(config.batch_size, mesh)
        self.init = functools.partial(heads.init_params, task.model)
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
        step, self.compile_seconds = self._compile()
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
            try:
                return self._finish(*self._loop(step, state, start))
            finally:
                self.log.close()

    def _compile(self):
        """The compiled step, after printing what it will do; with several processes all wait for each other."""
        began = time.perf_counter()
        frozen = optimizer.frozen(self.config, self.abstract.params)
        train_step = make_train_step(
            self.task.loss,
            self.optimizer,
            seed=self.config.seed,
            accumulate=self.config.accumulate,
            frozen=frozen if any(jax.tree.leaves(frozen)) else None,
        )
        local = BatchAt(self.task.train, self.config.batch_size, self.config.seed, self.rows)(0)
        batch = batches.abstract_batch(local, self.mesh, self.config.batch_size)
        placement = jax.tree.map(lambda x: x.sharding, self.abstract)
        everywhere = NamedSharding(self.mesh, P())
        lowered = jax.jit(
            train_step, donate_argnums=0, out_shardings=(placement, everywhere)
        ).lower(self.abstract, batch)
        compiled = lowered.compile()
        seconds = time.perf_counter() - began
        self.eval_step = jax.jit(make_eval_step(self.task.loss), out_shardings=everywhere)
        self.averages = None
        if optimizer.keeps_average(self.config.optimizer):
            average = lambda state: optimizer.evaluation_params(state.opt_state, state.params)
            self.averages = jax.jit(average, out_shardings=placement.params)
        self._describe(compiled, local)
        if jax.process_count() > 1:
            # gloo's reductions give up after 30 s of skew, and compile times differ by more
            multihost_utils.sync_global_devices("compiled")
        return compiled, seconds

    def _describe(self, compiled, local: dict[str, np.ndarray]) -> None:
        """Prints parameters, memory, FLOPs and a row of the first batch."""
        config, model = self.config, self.task.model.config
        memory = compiled.memory_analysis()
        self.memory = {
            "argument_bytes": int(memory.argument_size_in_bytes),
            "temporary_bytes": int(memory.temp_size_in_bytes),
            "output_bytes": int(memory.output_size_in_bytes - memory.alias_size_in_bytes),
        }
        self.tokens_per_step = config.batch_size * config.data.seq_len
        self.flops_per_token = flops.flops_per_token(
            model, config.data.seq_len, output_share=self.task.output_share
        )
        if self.task.generator is not None:
            self.flops_per_token += flops.flops_per_token(
                self.task.generator, config.data.seq_len, output_share=0.0
            )
        if not self.is_main:
            return
        overview.start_table(
            self.abstract.params,
            tokens_per_step=self.tokens_per_step,
            total_tokens=self.tokens_per_step * config.steps,
            flops_per_step=self.flops_per_token * self.tokens_per_step,
            mesh=dict(self.mesh.shape),
            dtypes=f"parameters float32, compute {compute_dtype(config.compute)}",
            memory=self.memory,
            run_dir=self.folder,
        )
        overview.batch_preview(self.task.preview({k: v[0] for k, v in local.items()}))

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
        return {
            "next_example": step * self.config.batch_size,
            "examples": len(self.task.train),
        }

    def _loop(self, compiled, state: TrainState, start: int) -> tuple[TrainState, int]:
        """All steps; the metrics of step n are fetched when step n + 1 is on its way."""
        config = self.config
        self.throughput = report.Throughput(self.tokens_per_step)
        self.began = time.perf_counter() - self.progress.seconds
        loader = Loader(
            self.task.train,
            batch_size=config.batch_size,
            seed=config.seed,
            rows=self.rows,
            workers=config.data.workers,
            start_step=start,
        )
        pending = None
        step = start
        try:
            for step in range(start + 1, config.steps + 1):
                batch = batches.to_devices(next(loader), self.mesh, config.batch_size, self.rows)
                state, metrics = compiled(state, batch)
                if pending is not None:
                    self._record(step - 1, pending)
                pending = metrics
                stopping = self.stop.reached(step)
                if stopping or self._is_due(step):
                    self._record(step, pending)
                    pending = None
                    enough = self._look_and_save(step, state, stopping)
                    if stopping:
                        raise processes.Stopped(step, self.stop.exit_code, str(self.folder))
                    if enough:
                        break
        finally:
            loader.close()
        return state, step

    def _is_due(self, step: int) -> bool:
        """Whether anything but the step itself happens at this step."""
        c = self.config
        intervals = [c.evaluation.every, c.checkpoint.every, c.sample_every]
        return step == c.steps or any(every and step % every == 0 for every in intervals)

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
                    "optimizer.learning_rate or look at the data; the last checkpoint is from before"
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
            "tokens": step * self.tokens_per_step,
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
