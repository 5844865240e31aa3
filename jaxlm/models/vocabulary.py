"""The loss of hidden states with the output table, on the mesh.

`ops.losses` computes it in chunks of positions. Left to XLA, every chunk would gather the table and reduce its gradient
over the devices. Here each device gathers the table once, runs all chunks of its own rows and positions, and reduces
the gradient once; that of a large table block by block (`ops.block_losses`).

Letters: B rows, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm import sharding
from jaxlm.ops import block_losses, losses, target

# Maximum number of float32 numbers in the gradient of the table that a device holds before it is reduced: 1 GiB.
MAX_GRADIENT = 2**28


def token_cross_entropy(
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    bias: Float[Array, " V"] | None = None,
    **options: Any,
) -> losses.TokenLoss:
    """`ops.losses.token_cross_entropy` of all rows, whose arguments and options it has."""
    run: Any = functools.partial(losses.token_cross_entropy, **options)
    rows, positions, width = (sharding.axes(dim) for dim in ("batch", "seq", "embed"))
    parts = sharding.shards("batch"), sharding.shards("seq")
    is_split = math.prod(parts) > 1
    # a last batch of an evaluation may be smaller, and tables that are no parameters have any width
    fits = all(size % count == 0 for size, count in zip(hidden.shape, parts))
    if not is_split or not fits or unembedding.shape[1] % sharding.shards("embed"):
        return run(hidden, unembedding, targets, weights, bias=bias)
    if bias is None:
        bias = jnp.zeros(unembedding.shape[0], jnp.float32)

    gather = functools.partial(_gathered, width, hidden.dtype)
    count = _block_count(hidden.shape, len(unembedding))

    def own_rows(hidden, table, bias, targets, weights):
        if count == 1:
            sums = run(hidden, gather(table), targets, weights, bias=bias)
            return jax.lax.psum(sums, (*rows, *positions))
        blocks = block_losses.Blocks(
            count,
            sharding.shards("vocab"),
            gather,
            reduce=lambda x: jax.lax.psum_scatter(
                sharding.constrain(x, "vocab", None), width, scatter_dimension=1, tiled=True
            ),
            place=lambda x: sharding.constrain(x, None, "vocab", *[None] * (x.ndim - 2)),
        )
        sums = block_losses.token_cross_entropy(
            hidden, table, targets, weights, bias=bias, blocks=blocks, **options
        )
        return jax.lax.psum(sums, (*rows, *positions))

    row = jax.P(rows, positions)
    # over `tensor`, which splits the vocabulary, XLA partitions the chunks
    return jax.shard_map(
        own_rows,
        in_specs=(row, jax.P(None, width), jax.P(), row, row),
        out_specs=jax.P(),
        axis_names={*rows, *positions, *width},
        check_vma=False,
    )(hidden, unembedding, bias, targets, weights)


def _block_count(shape: tuple[int, ...], vocab_size: int) -> int:
    """Into how many blocks the vocabulary is cut so that no device holds a large gradient of the table whole.

    1: not at all; the hidden states are [B, T, D].
    """
    rows, length, dim = shape
    own = vocab_size // sharding.shards("vocab")
    if own * dim <= MAX_GRADIENT or sharding.shards("embed") == 1:
        return 1
    tokens = rows // sharding.shards("batch") * (length // sharding.shards("seq"))
    logits = tokens * own
    most = losses.MAX_LOGITS[target.platform()]
    needed = max(-(-logits // most), -(-own * dim // MAX_GRADIENT))
    # blocks of fewer rows keep no device busy
    return next((n for n in range(needed, own // 128 + 1) if own % n == 0), 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _gathered(axes: tuple[str, ...], dtype: jnp.dtype, table: Array) -> Array:
    """The table [V, D] from the shares of its width, rounded to `dtype` on the way; its gradient is not rounded."""
    return jax.lax.all_gather(table.astype(dtype), axes, axis=1, tiled=True).astype(table.dtype)


@_gathered.defjvp
def _gathered_jvp(axes, dtype, primals, tangents):
    (table,), (tangent,) = primals, tangents
    # in reverse mode: each device gets its share of the sum
    return _gathered(axes, dtype, table), jax.lax.all_gather(tangent, axes, axis=1, tiled=True)
