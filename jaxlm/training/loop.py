"""The loop of pretraining and fine-tuning: compiles, resumes, runs steps and hooks, and writes the summary."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.checkpoint.store import Checkpoints
from jaxlm.config import RunConfig
from jaxlm.remote import mirror
from jaxlm.report import flops, run_log, trackers
from jaxlm.report.throughput import Throughput
from jaxlm.tasks import task as tasks
from jaxlm.training import batches, curriculum, peers, private_run, processes, profile, session
from jaxlm.training.curriculum import Plan
from jaxlm.training.heartbeat import Pulse
from jaxlm.training.hooks import Evaluate, Hook, Moment, Sample, Save
from jaxlm.training.pace import Pace
from jaxlm.training.programs import Programs, Segment
from jaxlm.training.progress import Diverged, Progress
from jaxlm.training.reference import Load
from jaxlm.training.session import Session
from jaxlm.training.state import TrainState


def fit(
    config: RunConfig, plan: Plan, folder: pathlib.Path, load: Load | None = None
) -> dict[str, Any]:
    """Trains from the newest checkpoint of `folder`, if there is one, to the end; returns the summary.

    Args:
        config: the resolved config.
        plan: from `curriculum.build`.
        folder: the run folder, locked by the caller.
        load: takes the abstract parameters, returns pretrained parts of them (backbone, head); None: all are random.

    Raises:
        ValueError: mesh, batch size or checkpoint do not match.
        processes.Stopped: stopped by a signal; everything is saved.
        Diverged: `max_bad_steps` consecutive steps were not finite.
    """
    if not config.dry_run and (done := finished(config, folder)) is not None:
        if processes.is_main():
            print(
                f"{mirror.named(folder)}: this run is complete at step {done['steps']}; nothing to do"
            )
        return done
    mesh = sharding.make_mesh(config.mesh)
    batches.check_sizes(config, mesh)
    profile.check(config.profile, config.steps)
    with jax.set_mesh(mesh), processes.StopRequest() as stop:
        if plan.private is not None:
            private = private_run.with_secret(plan.private, folder)
            plan = dataclasses.replace(plan, private=private)
            if not config.dry_run:
                private_run.write_facts(private, folder)
        programs = Programs(config, plan, mesh)
        session.describe(config, plan, programs, folder)
        if jax.process_count() > 1:
            # gloo's reductions time out after 30 s, and compile times of processes differ by more
            multihost_utils.sync_global_devices("compiled")
        if config.dry_run:
            return {"dry_run": True, **programs.memory}
        with Checkpoints(
            folder / "checkpoints",
            config.checkpoint,
            best_metric=plan.task.metric,
            best_is_lower=plan.task.lower_is_better,
            fatal=peers.fail,
            # of a run in a bucket, so that its metrics up to a checkpoint are there when the checkpoint is
            prepare=functools.partial(mirror.push, folder),
        ) as checkpoints:
            state, step, progress, reference = session.start(
                config, plan, programs, checkpoints, folder, load
            )
            ended = step >= config.steps or progress.has_stalled(config.evaluation.patience)
            if ended and (folder / "summary.json").is_file():
                print(f"{mirror.named(folder)}: this run is complete at step {step}; nothing to do")
                return run_log.read_summary(folder)
            is_main = jax.process_index() == 0
            log = run_log.RunLog(
                folder,
                total_steps=config.steps,
                is_main=is_main,
                start_step=step,
                trackers=trackers.start(config, folder, step) if is_main else {},
            )
            if step:
                log.note(f"resuming from step {step}")
            try:
                return _Loop(
                    Session(
                        config=config,
                        plan=plan,
                        programs=programs,
                        folder=folder,
                        mesh=mesh,
                        checkpoints=checkpoints,
                        log=log,
                        progress=progress,
                        reference=reference,
                        began=time.perf_counter() - progress.seconds,
                    ),
                    stop,
                ).run(state, step)
            finally:
                log.close()


def finished(config: RunConfig, folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a run that has ended in this folder, with its last checkpoint; None: there are steps to do."""
    if not (folder / "summary.json").is_file():
        return None
    summary = run_log.read_summary(folder)
    step = summary.get("steps", 0)
    if step not in store.steps(folder):
        return None
    ended = step >= config.steps
    if summary.get("stopped_early"):
        # with more patience than it had, it goes on
        progress = Progress(**store.load_json(folder, "progress", step=step))
        ended |= progress.has_stalled(config.evaluation.patience)
    return summary if ended else None


class _Loop:
    """The steps of a session, and the hooks between them."""

    def __init__(self, session: Session, stop: processes.StopRequest):
        self.session, self.stop = session, stop
        self.evaluate = Evaluate(session)
        self.hooks: Sequence[Hook] = (self.evaluate, Sample(session), Save(session))
        self.throughput = Throughput(0)
        self.pace = Pace()
        self.pulse = Pulse(session.config.distributed, self.pace)
        self.profile = profile.Profile(session.config.profile, session.folder, session.log.note)
        # of this session: its start, with what was compiled for it, and the time in steps before it
        self._began = time.perf_counter() - session.programs.seconds
        self._steps_before = session.progress.step_seconds

    def run(self, state: TrainState, step: int) -> dict[str, Any]:
        """Runs all remaining steps and returns the summary."""
        try:
            return self._run(state, step)
        finally:
            self.pulse.close()
            self.profile.stop()

    def _run(self, state: TrainState, step: int) -> dict[str, Any]:
        s = self.session
        if s.progress.has_stalled(s.config.evaluation.patience):
            # killed between its last checkpoint and its summary
            return self._finish(state, step)
        segments = s.programs.segments
        index = next((i for i, x in enumerate(segments) if step < x.last), len(segments))
        for i in range(index, len(segments)):
            segment = segments[i]
            before = segments[max(i - 1, 0)].phase
            if step == segment.first - 1 and segment.phase != before:
                state = session.enter_phase(
                    s.config, s.plan, s.programs, state, before, segment.phase
                )
            phase, total = s.programs.phases[segment.phase], len(s.programs.phases)
            if total > 1 and (step == phase.first - 1 or i == index):
                verb = "begins" if step == phase.first - 1 else "continues"
                s.log.note(f"phase {phase.index + 1} of {total} {verb}; {phase}")
            state, step, enough = self._segment(segment, state, step)
            if enough:
                break
        return self._finish(state, step)

    def _segment(
        self, segment: Segment, state: TrainState, start: int
    ) -> tuple[TrainState, int, bool]:
        """Runs the remaining steps of a segment: the state, the last step, and whether to stop early.

        The metrics of a step are fetched after the next one has been dispatched; only steps with hooks are waited for.
        """
        s = self.session
        stage = s.plan.stages[segment.stage]
        self.throughput = Throughput(stage.tokens_per_step)
        size = s.plan.rows_per_step(segment.stage)
        rows = batches.local_rows(size, s.mesh)
        loader = s.plan.loader(
            segment.stage, start, seed=s.config.seed, rows=rows, workers=s.config.data.workers
        )
        pending = None
        step, enough = start, False
        self.pace.begin()
        try:
            for step in range(start + 1, segment.last + 1):
                asked = time.perf_counter()
                batch = batches.to_devices(next(loader), s.mesh, size, rows)
                self.pulse.begin(step, time.perf_counter() - asked)
                self.profile.before(step)
                state, metrics = s.programs.step(segment, step)(state, batch, s.reference)
                if pending is not None:
                    self._record(segment, step - 1, pending)
                pending = metrics
                stopping = self.stop.reached(step)
                if self.profile.last == step:
                    jax.block_until_ready(metrics)
                    self.profile.stop()
                if stopping or step == segment.last or any(h.due(step) for h in self.hooks):
                    self._record(segment, step, pending)
                    pending = None
                    last = step == s.config.steps
                    moment = Moment(step, state, segment.phase, last, stopping)
                    with self.throughput.paused(), self.pace.paused(), self.pulse.resting():
                        for hook in self.hooks:
                            hook(moment)
                    enough = moment.enough
                    if stopping:
                        raise processes.Stopped(step, self.stop.exit_code, mirror.named(s.folder))
                    if enough:
                        break
        finally:
            loader.close()
        return state, step, enough

    def _record(self, segment: Segment, step: int, metrics: dict[str, Any]) -> None:
        """Counts the step, and logs it every `log_every` steps."""
        s = self.session
        values = jax.device_get(metrics)
        self.throughput.step()
        p = s.progress
        seconds = self.pace.step()
        p.step_seconds = self._steps_before + self.pace.seconds
        if seconds is not None and (slow := self.pace.slow(seconds)) is not None:
            s.log.note(f"step {step} {slow}; {self.pulse.heartbeat.cause(step, seconds)}")
        if values["skipped"]:
            p.skipped, p.bad_in_a_row = p.skipped + 1, p.bad_in_a_row + 1
            s.log.note(f"step {step}: loss or gradient is not finite; step skipped")
            if p.bad_in_a_row >= s.config.max_bad_steps:
                raise Diverged(
                    f"{p.bad_in_a_row} steps in a row were not finite, the last one step {step}: lower "
                    "optimizer.learning_rate or check the data; these steps did not change the parameters"
                )
        else:
            p.bad_in_a_row = 0
        phase, several = s.programs.phases[segment.phase], len(s.programs.phases) > 1
        # the first step of a phase is logged, so that the log shows where it begins
        if step % s.config.log_every and step not in (phase.first, s.config.steps):
            return
        stage, task = s.plan.stages[segment.stage], s.plan.tasks[segment.stage]
        speed = self.throughput.tokens_per_second
        kind = jax.devices()[0].device_kind
        s.log.step(
            step,
            {
                **tasks.metrics(s.plan.task, values["sums"]),
                "learning_rate": phase.learning_rate(step),
                "grad_norm": float(values["grad_norm"]),
                "tokens_per_second": speed,
                "mfu": flops.mfu(speed, task.cost(stage.seq_len), s.mesh.size, kind),
                "goodput": self.pace.seconds / (time.perf_counter() - self._began),
                "skipped": p.skipped or None,
                **_privacy(s.plan, step, values["sums"]),
                "phase": phase.index + 1 if several else None,
            },
        )

    def _finish(self, state: TrainState, step: int) -> dict[str, Any]:
        """Writes summary.json and curves, and prints the last evaluation."""
        s = self.session
        p = s.progress
        signatures = s.plan.task.signatures()
        verdict = s.plan.task.verdict(p.evaluation) if p.evaluation else None
        stalled = step < s.config.steps and p.has_stalled(s.config.evaluation.patience)
        wall = time.perf_counter() - s.began
        summary = {
            "name": s.config.name or s.folder.name,
            "run_dir": mirror.named(s.folder),
            "task": type(s.config.task).__name__,
            "steps": step,
            "seed": s.config.seed,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            # by which checkpoints are compared
            "metric": s.plan.task.metric,
            "lower_is_better": s.plan.task.lower_is_better,
            "evaluation": p.evaluation,
            **({"signatures": signatures} if p.evaluation and signatures else {}),
            **({"verdict": verdict} if verdict is not None else {}),
            "best": {"step": p.best_step, s.plan.task.metric: p.best} if p.best is not None else {},
            "stopped_early": p.why_stopped(step, s.plan.task.metric) if stalled else None,
            "skipped_steps": p.skipped,
            **({} if s.plan.private is None else {"privacy": s.plan.private.facts(step)}),
            "tokens": curriculum.tokens(s.plan.stages, step),
            "tokens_per_second": self.throughput.tokens_per_second,
            "wall_seconds": wall,
            # the fraction of the time since the start, compilation included, that was spent in steps
            "goodput": p.step_seconds / (wall + s.programs.seconds),
            "compile_seconds": s.programs.seconds,
            "device_kind": jax.devices()[0].device_kind,
            "num_devices": jax.device_count(),
            "num_processes": jax.process_count(),
            "jax": jax.__version__,
            "memory": s.programs.memory,
        }
        if self.evaluate.rendered is not None:
            s.log.note(self.evaluate.rendered)
        if stalled:
            s.log.note(str(summary["stopped_early"]))
        s.log.finish(summary)
        return summary


def _privacy(plan: Plan, step: int, sums: dict[str, Any]) -> dict[str, float]:
    """The epsilon spent so far, and the fraction of the units whose gradient was clipped; empty if not private."""
    if plan.private is None:
        return {}
    units = sums["units"]
    clipped = float(units["clipped"]) / max(float(units["drawn"]), 1)
    return {"epsilon": plan.private.spent(step), "clipped": clipped}
