"""A session of a run: the objects that its loop and its hooks share, and how it starts or resumes."""

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

# takes the abstract parameters, returns the pretrained parts of them
Load = Callable[[Any], dict[str, Any]]


@dataclasses.dataclass
class Session:
    """One execution of a run, from its start or newest checkpoint to its end."""

    config: RunConfig
    plan: Plan
    programs: Programs
    folder: pathlib.Path
    mesh: Mesh
    checkpoints: Checkpoints
    log: RunLog
    progress: Progress
    # parameters of the task's reference model, which are not trained
    reference: Any
    # start of the run by time.perf_counter, shifted as if it had not been interrupted
    began: float

    def has_stalled(self) -> bool:
        """Whether early stopping ends the run."""
        return has_stalled(self.config, self.progress)

    def data_position(self, step: int) -> dict[str, int]:
        """See the function of the same name."""
        return data_position(self.plan, step)

    def use_params(self, state: TrainState, phase: int) -> Any:
        """The parameters for evaluation and sampling."""
        return self.programs.phases[phase].evaluation_params(state.params, state.opt_state)


def has_stalled(config: RunConfig, progress: Progress) -> bool:
    """Whether the last `evaluation.patience` evaluations did not improve on the best."""
    patience = config.evaluation.patience
    return patience is not None and progress.stale >= patience


def data_position(plan: Plan, step: int) -> dict[str, int]:
    """The position in the data after a step, to resume on any number of processes and to detect changed data."""
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
    """The state, its step, the progress and the reference, from the newest checkpoint or newly created.

    Raises:
        ValueError: the training data or the reference has changed since the checkpoint.
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
            f"{folder}: the training data has changed since step {step} "
            f"({stored} then, {now} now): restore it, or start in another folder"
        )
    progress = Progress(**items["progress"])
    if progress.reference != _hash(reference):
        raise ValueError(
            f"{folder}: the reference model has changed since the run began: restore the model of --init"
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
    """The state at the start of a phase, from the state at the end of the previous phase."""
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
    """The items to restore from the checkpoint of a step: abstract arrays with shardings, None for JSON."""
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
    """The loaded parameters, and random ones for the rest; XLA removes the computation of unused random parameters."""
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
    """The task's reference, copied, because the first step donates the buffers of the parameters."""
    placement = jax.tree.map(lambda x: x.sharding, programs.reference)
    make = lambda p: jax.tree.map(jnp.copy, plan.task.reference(p))
    return jax.jit(make, out_shardings=placement)(params)


def _hash(reference: Any) -> str | None:
    if reference is None:
        return None
    sums = json.dumps(fingerprint(reference), sort_keys=True, default=str)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
