"""A session of a run: the objects that its loop and its hooks share, and how it starts or resumes."""

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
from jaxlm.nn.layers import compute_dtype
from jaxlm.remote import mirror
from jaxlm.report import overview
from jaxlm.report.run_log import RunLog
from jaxlm.sharding import shardings_of
from jaxlm.tasks.task import init_params
from jaxlm.training import curriculum, phases, reference, version_1
from jaxlm.training.curriculum import Plan
from jaxlm.training.programs import Programs, first_row
from jaxlm.training.progress import Progress
from jaxlm.training.reference import Load
from jaxlm.training.state import TrainState, create_state, init_key


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

    def use_params(self, state: TrainState, phase: int) -> Any:
        """The parameters for prediction and sampling."""
        averages = self.programs.averages(phase)
        return state.params if averages is None else averages(state)


def describe(config: RunConfig, plan: Plan, programs: Programs, folder: pathlib.Path) -> None:
    """Prints parameters, memory, FLOPs and the first row of the first batch."""
    if jax.process_index() != 0:
        return
    last = plan.stages[-1]
    first, params = programs.phases[0], programs.abstract[0].params
    trained = jax.eval_shape(lambda p: first.trainable(p, tuple(first.trained)), params)
    overview.start_table(
        params,
        trained=sum(x.size for x in jax.tree.leaves(trained)),
        tokens_per_step=last.tokens_per_step,
        total_tokens=curriculum.tokens(plan.stages, last.last),
        flops_per_step=plan.task.cost(last.seq_len) * last.tokens_per_step,
        stages=plan.stages,
        phases=programs.phases,
        mesh=dict(programs.mesh.shape),
        dtypes=f"parameters float32, compute {compute_dtype(config.compute)}",
        attention=programs.attention,
        memory=programs.memory,
        run_dir=mirror.named(folder),
    )
    row = {name: x[0] for name, x in first_row(plan.train[0], config.seed).items()}
    if pieces := plan.task.preview(row):
        overview.batch_preview(pieces, legend=plan.task.preview_legend)


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
        return (
            state,
            0,
            Progress(reference=reference.digest(made), tokenizer=_tokenizer(task)),
            made,
        )
    step, items = restored
    stored, now = items["data"], plan.data_position(step)
    if stored != now:
        raise ValueError(
            f"{mirror.named(folder)}: the training data has changed since step {step} "
            f"({stored} then, {now} now): restore it, or start in another folder"
        )
    progress = Progress(**items["progress"])
    reference.check(made, progress.reference, folder)
    # a run of an older version did not record it
    progress.tokenizer = progress.tokenizer or _tokenizer(task)
    if progress.tokenizer != _tokenizer(task):
        raise ValueError(
            f"{mirror.named(folder)}: tokenizer.json has changed since the run began: restore it"
        )
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
    """The state at the start of a phase, from the state at the end of the previous phase."""
    old, new = programs.phases[before], programs.phases[after]
    placement = shardings_of(programs.abstract[after])

    def enter(params, opt_state):
        key = jax.random.fold_in(init_key(config.seed), after)
        fresh = init_params(plan.task, key) if new.reset else None
        return new.enter(old, params, opt_state, fresh)

    jitted = jax.jit(enter, out_shardings=(placement.params, placement.opt_state))
    params, opt_state = jitted(state.params, state.opt_state)
    return TrainState(state.step, params, opt_state, state.task_state)


def _is_old(config: RunConfig, folder: pathlib.Path, step: int) -> bool:
    """Whether the checkpoint of a step has an optimizer state in the structure of version 1."""
    if not version_1.differs(config):
        return False
    try:
        return store.load_json(folder, "config", step=step)["version"] == 1
    except CheckpointError:
        # the error is reported when the arrays are read
        return False


def _target(
    config: RunConfig, programs: Programs, folder: pathlib.Path, step: int
) -> dict[str, Any]:
    """The items to restore from the checkpoint of a step: abstract arrays with shardings, None for JSON."""
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


def _tokenizer(task: Any) -> str | None:
    return None if task.tokenizer is None else task.tokenizer.fingerprint
