"""One session of a run: everything that its loop and its hooks share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.checkpoint import store
from jaxlm.checkpoint.store import CheckpointError, Checkpoints
from jaxlm.config import RunConfig
from jaxlm.report.run_log import RunLog
from jaxlm.training import phases, reference, version_1
from jaxlm.training.curriculum import Plan
from jaxlm.training.programs import Programs
from jaxlm.training.progress import Progress
from jaxlm.training.reference import Load
from jaxlm.training.state import TrainState, create_state, init_key


@dataclasses.dataclass
class Session:
    """A run from its start, or from its newest checkpoint, to its end."""

    config: RunConfig
    plan: Plan
    programs: Programs
    folder: pathlib.Path
    mesh: Mesh
    checkpoints: Checkpoints
    log: RunLog
    progress: Progress
    # parameters that the task compares with and that are not trained
    reference: Any
    # when the run would have begun without interruptions, by time.perf_counter
    began: float

    def has_stalled(self) -> bool:
        """Whether early stopping ends the run."""
        return has_stalled(self.config, self.progress)

    def data_position(self, step: int) -> dict[str, int]:
        """See the function of the same name."""
        return data_position(self.plan, step)

    def use_params(self, state: TrainState, phase: int) -> Any:
        """The parameters to predict and sample with."""
        averages = self.programs.averages(phase)
        return state.params if averages is None else averages(state)


def has_stalled(config: RunConfig, progress: Progress) -> bool:
    """Whether so many evaluations in a row were no better than the best that the run is to stop."""
    patience = config.evaluation.patience
    return patience is not None and progress.stale >= patience


def data_position(plan: Plan, step: int) -> dict[str, int]:
    """The position in the data after a step: enough to resume on any number of processes, and to notice other data."""
    index, example = plan.position(step)
    return {"next_example": example, "examples": len(plan.train[index])}


def start(
    config: RunConfig,
    plan: Plan,
    programs: Programs,
    checkpoints: Checkpoints,
    folder: pathlib.Path,
    load: Load | None,
) -> tuple[TrainState, int, Progress, Any]:
    """The state to resume from, its step, the progress so far, and the reference: the newest checkpoint's, or fresh.

    Raises:
        ValueError: the training data or the reference is not what it was.
    """
    restored = checkpoints.restore(lambda step: _target(config, programs, folder, step))
    task, abstract = plan.task, programs.abstract[0]
    has_reference = programs.reference is not None
    params = made = None
    if has_reference or (restored is None and load is not None):
        params = reference.initial_params(task, abstract.params, config.seed, load)
    if has_reference:
        made = reference.make(task, programs.reference, params)
    if restored is None:
        state = create_state(task, programs.phases[0], abstract, config.seed, params)
        return state, 0, Progress(reference=reference.digest(made)), made
    step, items = restored
    stored, now = items["data"], data_position(plan, step)
    if stored != now:
        raise ValueError(
            f"{folder}: the training data is not what it was at step {step} "
            f"({stored} then, {now} now): bring it back, or start in another folder"
        )
    progress = Progress(**items["progress"])
    reference.check(made, progress.reference, folder)
    opt_state = items["opt_state"]
    if _is_old(config, folder, step):
        opt_state = version_1.upgrade_opt_state(
            config, programs.phases[0], opt_state, abstract.opt_state
        )
    state = TrainState(
        jax.device_put(np.int32(step), abstract.step.sharding),
        items["params"],
        opt_state,
        items.get("task_state"),
    )
    return state, step, progress, made


def enter_phase(
    config: RunConfig, plan: Plan, programs: Programs, state: TrainState, before: int, after: int
) -> TrainState:
    """The state at the start of a phase, from that at the end of the phase before it."""
    old, new = programs.phases[before], programs.phases[after]
    placement = jax.tree.map(lambda x: x.sharding, programs.abstract[after])

    def enter(params, opt_state):
        key = jax.random.fold_in(init_key(config.seed), after)
        fresh = plan.task.init(key) if new.reset else None
        return new.enter(old, params, opt_state, fresh)

    jitted = jax.jit(enter, out_shardings=(placement.params, placement.opt_state))
    params, opt_state = jitted(state.params, state.opt_state)
    return TrainState(state.step, params, opt_state, state.task_state)


def _is_old(config: RunConfig, folder: pathlib.Path, step: int) -> bool:
    """Whether the checkpoint of a step has an optimizer state of another structure than today's."""
    if not version_1.differs(config):
        return False
    try:
        return store.load_json(folder, "config", step=step)["version"] == 1
    except CheckpointError:
        # whoever reads its arrays finds out what is wrong with it
        return False


def _target(
    config: RunConfig, programs: Programs, folder: pathlib.Path, step: int
) -> dict[str, Any]:
    """What is restored of the checkpoint of a step: arrays with their placement, None for JSON."""
    phase = phases.at_step(programs.phases, step)
    abstract = programs.abstract[phase.index]
    if _is_old(config, folder, step):
        old = version_1.abstract_opt_state(config, phase, abstract.params, programs.mesh)
        abstract = dataclasses.replace(abstract, opt_state=old)  # type: ignore[type-var]
    target = {
        "params": abstract.params,
        "opt_state": abstract.opt_state,
        "step": None,
        "data": None,
        "progress": None,
    }
    if abstract.task_state is not None:
        target["task_state"] = abstract.task_state
    return target
