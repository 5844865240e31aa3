"""Implementations tuned for XLA's TPU backend: rotary positions.

Each is equivalent to a plain formula in `ops/`, which calls it if `target.platform()` is "tpu". There, arrays are kept
in tiles of 8 x 128 numbers: what splits or merges the last two dims writes everything out again.

Letters: B batch, T positions, N heads, H head width, R rotated pairs of dims.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def rope(
    x: Float[Array, "B T N H"],
    tables: tuple[Float[Array, "B T 1 R"], Float[Array, "B T 1 R"]],
    pairs: Literal["halves", "neighbours"],
) -> Float[Array, "B T N H"]:
    """See `ops.positions.rope`; the dims of a pair change places by a product with a constant matrix.

    Halves of a head would be written out, in float32 and each padded to the width of a tile. The product adds 2 H
    operations per number, half a percent of those of a Llama of 7B.
    """
    cos, sin = tables
    width, rotated = x.shape[-1], 2 * cos.shape[-1]
    if pairs == "halves":
        first = np.arange(rotated // 2)
        second = first + rotated // 2
        spread = lambda y: jnp.concatenate([y, y], -1)
    else:
        first = np.arange(0, rotated, 2)
        second = first + 1
        spread = lambda y: jnp.repeat(y, 2, -1)
    matrix = np.zeros((width, width), np.float32)
    matrix[second, first], matrix[first, second] = -1, 1
    # one for each row, because rematerialization policies keep the results of products without batch dims
    swap = jnp.broadcast_to(jnp.asarray(matrix, x.dtype), (x.shape[0], width, width))
    exact = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    other = jnp.einsum(
        "BTNH,BHI->BTNI", x, swap, precision=exact, preferred_element_type=jnp.float32
    )
    rest = ((0, 0),) * 3 + ((0, width - rotated),)
    cos = jnp.pad(spread(cos), rest, constant_values=1)
    sin = jnp.pad(spread(sin), rest)
    return (x.astype(jnp.float32) * cos + other * sin).astype(x.dtype)
