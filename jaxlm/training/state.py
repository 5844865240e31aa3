"""What a run carries from step to step, created where it lies: never unsharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from jaxlm import sharding


@struct.dataclass
class TrainState:
    """Step, parameters and optimizer state; a new one comes out of every step."""

    step: jax.Array
    params: Any
    opt_state: Any


def abstract_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of a state, without any array."""

    def create(key):
        params = init(key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings = sharding.tree_shardings(shapes, shapes.params, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def create_state(
    init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    abstract: TrainState,
    seed: int,
    params: Any = None,
) -> TrainState:
    """A fresh state, each part made on the devices that hold it.

    Args:
        init: random parameters from a key.
        optimizer: whose state is made.
        abstract: from `abstract_state`.
        seed: of the random parameters.
        params: use these, sharded arrays, instead of random ones.
    """
    place = jax.tree.map(lambda x: x.sharding, abstract)
    if params is None:
        # the last word of the seed's key: 0 for the weights, 1 for the steps
        key = jax.random.fold_in(jax.random.key(seed), 0)
        params = jax.jit(init, out_shardings=place.params)(key)
    opt_state = jax.jit(optimizer.init, out_shardings=place.opt_state)(params)
    step = jax.device_put(jnp.zeros((), jnp.int32), place.step)
    return TrainState(step, params, opt_state)
