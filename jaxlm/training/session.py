"""One session of a run: everything that its loop and its hooks share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlm.checkpoint.fingerprint import fingerprint
from jaxlm.checkpoint.store import Checkpoints
from jaxlm.config import RunConfig
from jaxlm.report.run_log import RunLog
from jaxlm.training import phases
from jaxlm.training.curriculum import Plan
from jaxlm.training.programs import Programs
from jaxlm.training.progress import Progress
from jaxlm.training.state import TrainState, create_state, init_key

# from the abstract parameters to those parts of them that a run starts with
Load = Callable[[Any], dict[str, Any]]


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
        """The parameters to evaluate and sample with."""
        return self.programs.phases[phase].evaluation_params(state.params, state.opt_state)


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
    """The state to go on from, its step, the progress so far, and the reference: the newest checkpoint's, or fresh.

    Raises:
        ValueError: the training data or the reference is not what it was.
    """
    restored = checkpoints.restore(lambda step: _target(programs, step))
    reference = None
    if programs.reference is not None and jax.tree.leaves(programs.reference):
        reference = _reference(plan, programs, _initial_params(config, plan, programs, load))
    if restored is None:
        params = None if load is None else _initial_params(config, plan, programs, load)
        state = create_state(
            plan.task, programs.phases[0], programs.abstract[0], config.seed, params
        )
        return state, 0, Progress(reference=_hash(reference)), reference
    step, items = restored
    stored, now = items["data"], data_position(plan, step)
    if stored != now:
        raise ValueError(
            f"{folder}: the training data is not what it was at step {step} "
            f"({stored} then, {now} now): bring it back, or start in another folder"
        )
    progress = Progress(**items["progress"])
    if progress.reference != _hash(reference):
        raise ValueError(
            f"{folder}: the reference model is not what it was when the run began: bring the model of --init back"
        )
    placement = programs.abstract[0].step.sharding
    state = TrainState(
        jax.device_put(np.int32(step), placement),
        items["params"],
        items["opt_state"],
        items.get("task_state"),
    )
    return state, step, progress, reference


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


def _target(programs: Programs, step: int) -> dict[str, Any]:
    """What is restored of the checkpoint of a step: arrays with their placement, None for JSON."""
    abstract = programs.abstract[phases.at_step(programs.phases, step).index]
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


def _initial_params(config: RunConfig, plan: Plan, programs: Programs, load: Load | None) -> Any:
    """What is loaded, and random parameters for the rest; XLA drops the random ones that are not used."""
    abstract = programs.abstract[0].params
    loaded = {} if load is None else load(abstract)
    rest = {name: tree for name, tree in abstract.items() if name not in loaded}
    if not rest:
        return loaded
    placement = jax.tree.map(lambda x: x.sharding, rest)
    make = jax.jit(
        lambda key: {name: plan.task.init(key)[name] for name in rest}, out_shardings=placement
    )
    return {**make(init_key(config.seed)), **loaded}


def _reference(plan: Plan, programs: Programs, params: Any) -> Any:
    """The task's reference, in buffers of its own: those of the parameters are given away by the first step."""
    placement = jax.tree.map(lambda x: x.sharding, programs.reference)
    make = lambda p: jax.tree.map(jnp.copy, plan.task.reference(p))
    return jax.jit(make, out_shardings=placement)(params)


def _hash(reference: Any) -> str | None:
    if reference is None:
        return None
    sums = json.dumps(fingerprint(reference), sort_keys=True, default=str)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
