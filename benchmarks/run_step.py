"""The training step of a run as `training.loop` compiles it, with its own batches, for the benchmarks."""

from __future__ import annotations

import time
from typing import Any

import jax

from jaxlm.training import batches
from jaxlm.training.curriculum import Plan
from jaxlm.training.programs import Programs
from jaxlm.training.state import create_state


class RunStep:
    """The first segment of a plan, from step 1 on.

    Args:
        config: of the run, as `prepare.make_plan` returns it.
        plan: of the run.
        mesh: of all devices, which is set.
    """

    def __init__(self, config: Any, plan: Plan, mesh: jax.sharding.Mesh):
        self.programs = Programs(config, plan, mesh)
        self._step = self.programs.step(self.programs.segments[0], 1)
        self._state = create_state(plan.task, self.programs.phases[0], self.programs.abstract[0], 0)
        self._mesh, self._size = mesh, plan.rows_per_step(0)
        self._rows = batches.local_rows(self._size, mesh)
        self._loader = plan.loader(0, 0, seed=0, rows=self._rows, workers=0)

    def seconds(self) -> float:
        """Takes a step; without the time to read its batch."""
        batch = batches.to_devices(next(self._loader), self._mesh, self._size, self._rows)
        began = time.perf_counter()
        self._state, metrics = self._step(self._state, batch, None)
        jax.block_until_ready((self._state.params, metrics))
        return time.perf_counter() - began
