"""Products of consecutive groups of rows with a matrix of each group's own.

Letters: R rows, E groups, D input width, F output width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.ops import target

# rows and width of a tile of the kernel for TPUs
_TILE_ROWS, _TILE_WIDTH = 512, 1024


def grouped_product(
    rows: Float[Array, "R D"], kernels: Float[Array, "E D F"], sizes: Int[Array, " E"]
) -> Float[Array, "R F"]:
    """The product of each row with the matrix of its group, in the dtype of the rows.

    The first `sizes[0]` rows belong to group 0, the next ones to group 1, and so on. Rows behind the last group may
    have any value. XLA multiplies all rows with all matrices on TPUs, so they get a kernel of Pallas; on GPUs and CPUs
    it does so too, unless `JAX_RAGGED_DOT_USE_GPU_PALLAS_TRITON_LOWERING` is set.
    """
    kernels, sizes = kernels.astype(rows.dtype), sizes.astype(jnp.int32)
    if target.platform() == "tpu" and min(*rows.shape, kernels.shape[2]) >= 128:
        return megablox(rows, kernels, sizes)
    return jax.lax.ragged_dot(rows, kernels, group_sizes=sizes)


def megablox(
    rows: Float[Array, "R D"],
    kernels: Float[Array, "E D F"],
    sizes: Int[Array, " E"],
    *,
    interpret: bool = False,
) -> Float[Array, "R F"]:
    """`grouped_product` by the kernel of MegaBlocks (Gale et al. 2022, 2211.15841) for TPUs; `interpret` for tests."""
    # imported here because it takes a second to load
    from jax.experimental.pallas.ops.tpu.megablox import gmm

    count = len(rows)
    tile = min(_TILE_ROWS, -(-count // 128) * 128)
    # the same for inputs and outputs, which change places in the backward pass
    width = min(_TILE_WIDTH, *kernels.shape[1:])
    rows = jnp.pad(rows, ((0, -count % tile), (0, 0)))
    tiles = (tile, width, width)
    y = gmm(rows, kernels, sizes, rows.dtype, tiles, None, None, False, interpret)
    return y[:count]
