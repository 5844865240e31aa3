"""What relative positions add to the scores of attention: a bias by bucket of distance, or disentangled attention.

Documents of a packed row do not attend to each other, so positions in the row suffice.
Letters: B batch, T query positions, S key positions, D model width, N heads, H head width, R buckets of distances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import TransformerConfig
from jaxlm.ops import masks, positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relative:
    """Inputs of the scores by distance, the same in all layers of one kind."""

    # position of the key minus that of the query
    distance: Int[Array, "B T S"]
    # disentangled attention: a vector for each bucket
    vectors: Float[Array, "R D"] | None
    causal: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls, mask: masks.Mask, q_len: int, kv_len: int, vectors: Array | None = None
    ) -> Relative:
        """The distances of the queries and keys of a mask."""
        q, k = mask.q_positions, mask.kv_positions
        q = jnp.arange(q_len)[None] if q is None else q
        k = jnp.arange(kv_len)[None] if k is None else k
        return cls(k[:, None, :] - q[:, :, None], vectors, mask.causal)


def bias_table(module: nn.Module, config: TransformerConfig) -> Float[Array, "R N"]:
    """T5's bias of each bucket and head, a parameter of the module."""
    shape = (config.relative_buckets, config.num_heads)
    init = nn.initializers.normal(config.init_std)
    return module.param("relative_bias", init, shape, jnp.float32)


def bias_of(
    table: Float[Array, "R N"], config: TransformerConfig, relative: Relative
) -> Float[Array, "B N T S"]:
    """T5's bias on the scores."""
    return positions.relative_bias(
        table,
        relative.distance,
        causal=relative.causal,
        max_distance=config.relative_max_distance,
    )


def disentangled_bias(
    config: TransformerConfig,
    relative: Relative,
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S N H"],
    project: Callable[[str, Float[Array, "R D"]], Float[Array, "R N H"]],
) -> Float[Array, "B N T S"]:
    """The products of content and position, scaled like the scores (He et al. 2020, 2006.03654, equation 4).

    Args:
        config: the model.
        relative: vectors of the buckets.
        q: queries.
        k: keys.
        project: query or key projection of the vectors.
    """
    c = config
    assert relative.vectors is not None
    bucket = positions.disentangled_buckets(q.shape[1], c.relative_buckets, c.relative_max_distance)
    bias = jnp.zeros((), jnp.float32)
    if "content_to_position" in c.relative_terms:
        keys = project("key", relative.vectors)[bucket]
        bias = bias + positions.by_distance(q, keys)
    if "position_to_content" in c.relative_terms:
        queries = project("query", relative.vectors)[bucket[::-1]]
        bias = bias + positions.by_distance(k, queries).swapaxes(-1, -2)
    return bias * c.score_scale
