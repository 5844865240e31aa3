"""The compiled programs of a run: the step of each stage, phase and turn, and the evaluation of each phase.

All steps are compiled before the first one runs, so that insufficient memory is detected at the start.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.config import RunConfig
from jaxlm.data.loader import BatchAt, Dataset
from jaxlm.ops import attention
from jaxlm.report import overview
from jaxlm.tasks.task import init_params
from jaxlm.training import batches, phases, predictions, reference, state
from jaxlm.training.curriculum import Plan
from jaxlm.training.phases import Phase
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Segment:
    """Consecutive steps of one stage and one phase."""

    first: int
    last: int
    stage: int
    phase: int


class Programs:
    """The compiled programs of a run, and the abstract state of each phase."""

    def __init__(self, config: RunConfig, plan: Plan, mesh: Mesh):
        """Compiles the training steps; evaluations are compiled when they are first called."""
        began = time.perf_counter()
        self.config, self.plan, self.mesh = config, plan, mesh
        task = plan.task
        params = jax.eval_shape(functools.partial(init_params, task), jax.random.key(0))
        self.phases = phases.make_phases(config, task.phases(), params)
        # shapes and shardings of the state in each phase
        self.abstract = [state.abstract_state(task, phase, mesh) for phase in self.phases]
        self.reference = reference.abstract(task, self.abstract[0].params, mesh)
        self.segments = _segments(plan, self.phases)
        self._everywhere = NamedSharding(mesh, P())
        with attention.choices() as choices:
            self._steps = {
                (s.stage, s.phase, turn): self._compile(s, turn)
                for s in self.segments
                for turn in range(max(len(self.phases[s.phase].turns), 1))
            }
        # implementations of attention in the steps, and why not the fastest one
        self.attention = list(choices)
        self.seconds = time.perf_counter() - began
        # bytes per device of the program that needs most memory
        self.memory = max(map(overview.memory, self._steps.values()), key=lambda m: sum(m.values()))

    def step(self, segment: Segment, step: int) -> Callable[..., Any]:
        """The compiled training program for a step of a segment."""
        turn = self.phases[segment.phase].turn(step)
        return self._steps[segment.stage, segment.phase, turn]

    @functools.cache  # noqa: B019 - lives as long as the run
    def evaluation(self, phase: int) -> Callable[..., Any]:
        """The function (state, batch, reference) -> sums of a phase."""
        step = make_eval_step(self.plan.task.loss, self.phases[phase])
        return jax.jit(step, out_shardings=self._everywhere)

    @functools.cache  # noqa: B019
    def prediction(self) -> predictions.Run:
        """The task's predictions, which are the same function in every phase."""
        return predictions.compile_predict(self.plan.task, self.mesh)

    @functools.cache  # noqa: B019
    def analysis(self) -> Callable[..., Any]:
        """The task's analysis of a batch, for its diagnostics."""
        return predictions.compile_analyse(self.plan.task, self.mesh)

    @functools.cache  # noqa: B019
    def averages(self, phase: int) -> Callable[[TrainState], Any] | None:
        """The function state -> parameters to evaluate; None if those are the trained ones."""
        own = self.phases[phase]
        if not own.keeps_average:
            return None
        placement = sharding.shardings_of(self.abstract[phase].params)
        return jax.jit(
            lambda s: own.evaluation_params(s.params, s.opt_state), out_shardings=placement
        )

    def _compile(self, segment: Segment, turn: int) -> jax.stages.Compiled:
        return lower_step(
            self.config,
            self.plan,
            self.mesh,
            stage=segment.stage,
            turn=turn,
            phase=self.phases[segment.phase],
            abstract=self.abstract[segment.phase],
            reference=self.reference,
        ).compile()


def lower_step(
    config: RunConfig,
    plan: Plan,
    mesh: Mesh,
    *,
    phase: Phase,
    abstract: TrainState,
    reference: Any,
    stage: int = -1,
    turn: int = 0,
) -> jax.stages.Lowered:
    """The training step, traced for the devices of a mesh; of devices that are not here it can still be compiled.

    Args:
        config: of the run.
        plan: of the run.
        mesh: the devices.
        phase: one of `phases.make_phases`.
        abstract: from `state.abstract_state`.
        reference: from `reference.abstract`.
        stage: index of the stage.
        turn: index of the turn, if groups take turns in the phase.
    """
    rows = plan.train[stage]
    if plan.private is not None:
        rows = plan.private.units
    train_step = make_train_step(
        plan.tasks[stage].loss,
        phase,
        seed=config.seed,
        accumulate=config.accumulate,
        turn=turn,
        mechanism=None if plan.private is None else plan.private.mechanism,
    )
    placement, everywhere = sharding.shardings_of(abstract), NamedSharding(mesh, P())
    batch = batches.abstract_batch(first_row(rows, config.seed), mesh, plan.rows_per_step(stage))
    jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(placement, everywhere))
    # the abstract mesh: the devices of a mesh need not be here, and eager operations would run on them
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jitted.lower(abstract, batch, reference)


def first_row(rows: Dataset, seed: int) -> dict[str, np.ndarray]:
    """The first row of the first batch, arrays [1, ...]."""
    return BatchAt(rows, 1, seed)(0)


def _segments(plan: Plan, all_phases: list[Phase]) -> list[Segment]:
    ends = sorted({s.last for s in plan.stages} | {p.last for p in all_phases})
    out = []
    first = 1
    for end in ends:
        stage = next(i for i, s in enumerate(plan.stages) if end <= s.last)
        phase = phases.at_step(all_phases, end).index
        out.append(Segment(first, end, stage, phase))
        first = end + 1
    return out
