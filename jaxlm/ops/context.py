"""Attention of rows whose positions are split over the devices of the mesh axis `context`.

Every device has consecutive positions of its rows, and attends with its own queries to the keys of all: each key is
sent to every device once (as in Llama 3, 2407.21783, section 3.3.2), which mixes with every mask and bias.
Letters: B batch, T query positions, S key positions, K key/value heads, H head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# the axes over which rows and heads are split, as in `sharding.RULES`
BATCH, HEADS, POSITIONS = ("data", "fsdp", "expert"), "tensor", "context"


def batch_shards() -> int:
    """Number of devices over which the rows of a batch are split; 1 without a mesh."""
    shape = jax.sharding.get_abstract_mesh().shape
    return int(np.prod([shape.get(axis, 1) for axis in BATCH]))


def shards(length: int) -> int:
    """Number of devices over which so many positions are split: 1 if they are fewer, as in `sharding.constrain`."""
    count = jax.sharding.get_abstract_mesh().shape.get(POSITIONS, 1)
    return 1 if length < count else count


def gathered(x: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
    """Keys or values with all positions on every device, for formulas that XLA splits."""
    return jax.lax.with_sharding_constraint(x, jax.P(BATCH, None, HEADS, None))


def balanced_order(length: int, count: int) -> np.ndarray:
    """The positions of each device after `balanced`, one device after another: chunks i and 2 count - 1 - i of each.

    With a causal mask the last of several consecutive parts would have almost twice the mean of the work.
    """
    chunks = np.arange(length).reshape(2 * count, -1)
    return np.concatenate([chunks[[i, -1 - i]].reshape(-1) for i in range(count)])


def balanced(x: Array, axis: int) -> Array:
    """Exchanges chunks of positions between the devices, within `jax.shard_map`: see `balanced_order`."""
    count = jax.lax.axis_size(POSITIONS)
    even, odd = _owners(count)
    first, second = jnp.split(x, 2, axis)
    first = jax.lax.ppermute(first, POSITIONS, list(enumerate(even)))
    second = jax.lax.ppermute(second, POSITIONS, list(enumerate(odd)))
    return _in_order(first, second, axis)


def unbalanced(x: Array, axis: int) -> Array:
    """The inverse of `balanced`."""
    count = jax.lax.axis_size(POSITIONS)
    even, odd = _owners(count)
    low, high = jnp.split(x, 2, axis)
    is_even = jax.lax.axis_index(POSITIONS) % 2 == 0
    first, second = jnp.where(is_even, low, high), jnp.where(is_even, high, low)
    first = jax.lax.ppermute(first, POSITIONS, [(j, i) for i, j in enumerate(even)])
    second = jax.lax.ppermute(second, POSITIONS, [(j, i) for i, j in enumerate(odd)])
    return jnp.concatenate([first, second], axis)


def _owners(count: int) -> tuple[list[int], list[int]]:
    """The device that gets the first half of each device's positions, and that which gets the second half."""
    owner = [*range(count), *reversed(range(count))]
    return owner[::2], owner[1::2]


def _in_order(first: Array, second: Array, axis: int) -> Array:
    """The chunks that a device received, the earlier one first: on even devices it was a first half."""
    is_even = jax.lax.axis_index(POSITIONS) % 2 == 0
    halves = jnp.where(is_even, first, second), jnp.where(is_even, second, first)
    return jnp.concatenate(halves, axis)
