"""Attention of rows whose positions are split over the devices of the mesh axis `context`.

Every device has consecutive positions of its rows, and attends with its own queries to the keys of all: each key is
sent to every device once (as in Llama 3, 2407.21783, section 3.3.2), which mixes with every mask and bias.
Letters: B batch, T query positions, S key positions, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.ops import masks

# the axes over which rows and heads are split, as in `sharding.RULES`
BATCH, HEADS, POSITIONS = ("data", "fsdp", "expert"), "tensor", "context"
# Maximum number of float32 scores on one device at a time, where no kernel does without them: 1 GiB.
MAX_SCORES = 2**28


def batch_shards() -> int:
    """Number of devices over which the rows of a batch are split; 1 without a mesh."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape.get(axis, 1) for axis in BATCH)


def shards(length: int) -> int:
    """Number of devices over which so many positions are split: 1 if they are fewer, as in `sharding.constrain`."""
    count = jax.sharding.get_abstract_mesh().shape.get(POSITIONS, 1)
    return 1 if length < count else count


def gathered(x: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
    """Keys or values with all positions on every device, for formulas that XLA splits."""
    return jax.lax.with_sharding_constraint(x, jax.P(BATCH, None, HEADS, None))


def by_blocks(
    attend: Callable[..., Float[Array, "B T N H"]],
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: masks.Mask,
    *,
    bias: Float[Array, "#B N #T S"] | None,
    key: Array | None,
) -> Float[Array, "B T N H"]:
    """`attend(q, k, v, mask, bias=bias, key=key)`, block by block of the queries of every device if there are many.

    The backward pass computes the scores of each block again.
    """
    length, count = q.shape[1], shards(q.shape[1])
    blocks = _block_count(q, k.shape[1])
    if blocks == 1:
        return attend(q, k, v, mask, bias=bias, key=key)

    def split(x: Array | None, axis: int) -> Array | None:
        """Block i has positions of all devices: [blocks, ...]."""
        if x is None or x.shape[axis] != length:
            return None
        x = x.reshape(*x.shape[:axis], count, blocks, -1, *x.shape[axis + 1 :])
        x = jnp.moveaxis(x, axis + 1, 0)
        return x.reshape(*x.shape[: axis + 1], -1, *x.shape[axis + 3 :])

    def one(_, block):
        index, q, positions, segment_ids, dense, own_bias = block
        own = dataclasses.replace(
            mask, q_positions=positions, q_segment_ids=segment_ids, dense=dense
        )
        own_key = None if key is None else jax.random.fold_in(key, index)
        own_bias = bias if own_bias is None else own_bias
        return None, attend(q, k, v, own, bias=own_bias, key=own_key)

    positions = jnp.arange(length)[None] if mask.q_positions is None else mask.q_positions
    parts = (
        jnp.arange(blocks),
        split(q, 1),
        split(positions, 1),
        split(mask.q_segment_ids, 1),
        split(mask.dense, 2),
        None if bias is None else split(bias, 2),
    )
    out = jax.lax.scan(jax.checkpoint(one, prevent_cse=False), None, parts)[1]
    # [blocks, B, count x t, N, H] -> [B, T, N, H]
    out = out.reshape(blocks, len(q), count, -1, *q.shape[2:])
    return jnp.moveaxis(out, 0, 2).reshape(q.shape)


def _block_count(q: Float[Array, "B T N H"], keys: int) -> int:
    """The smallest number of blocks of a device's queries with at most MAX_SCORES scores each."""
    rows, length, heads = q.shape[:3]
    count = shards(length)
    own = length // count
    tensor = jax.sharding.get_abstract_mesh().shape.get(HEADS, 1)
    scores = max(rows // batch_shards(), 1) * max(heads // tensor, 1) * own * keys
    fitting = (n for n in range(1, own) if own % n == 0 and scores // n <= MAX_SCORES)
    return 1 if length % count else next(fitting, own)


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
