"""The training state, created with its shardings and never unsharded."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.tasks.task import Task, init_params
from jaxlm.training.phases import Phase


@struct.dataclass
class TrainState:
    """Step, parameters, optimizer state and task state; every step returns a new one."""

    step: jax.Array
    params: Any
    opt_state: Any
    task_state: Any = None


def abstract_state(task: Task, phase: Phase, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state in a phase, without allocating arrays."""

    def create(key):
        params = init_params(task, key)
        return TrainState(jnp.zeros((), jnp.int32), params, phase.init(params), task.init_state())

    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings = sharding.tree_shardings(shapes, shapes.params, mesh)
    # an optimizer's state has the structure of its group's parameters, which may be some blocks of a stack
    parts = jax.eval_shape(lambda p: phase.trainable(p, tuple(phase.trained)), shapes.params)
    for part in parts.values():
        own = sharding.tree_shardings(shapes, part, mesh)
        pick = lambda a, b: b if a.is_fully_replicated else a
        shardings = jax.tree.map(pick, shardings, own)
    return sharding.with_shardings(shapes, shardings)


def create_state(
    task: Task, phase: Phase, abstract: TrainState, seed: int, params: Any = None
) -> TrainState:
    """A new state, each part of it created on the devices that hold it.

    Args:
        task: creates random parameters and the task state.
        phase: creates the optimizer state.
        abstract: from `abstract_state`.
        seed: of the random parameters.
        params: sharded arrays to use instead of random ones.
    """
    placement = sharding.shardings_of(abstract)
    if params is None:
        init = functools.partial(init_params, task)
        params = jax.jit(init, out_shardings=placement.params)(init_key(seed))
    opt_state = jax.jit(phase.init, out_shardings=placement.opt_state)(params)
    task_state = jax.jit(task.init_state, out_shardings=placement.task_state)()
    step = jax.device_put(jnp.zeros((), jnp.int32), placement.step)
    return TrainState(step, params, opt_state, task_state)


def init_key(seed: int) -> jax.Array:
    """The key of a run's random parameters; the keys of its steps derive from fold_in(key, 1)."""
    return jax.random.fold_in(jax.random.key(seed), 0)
