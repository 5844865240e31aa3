"""Boolean attention masks, True = attend."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Added to masked scores; finite, so that a query without any allowed key gets a mean instead of NaN.
MASKED = -1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """Which keys each query may attend to, as a rule instead of a matrix, so that kernels can skip whole blocks.

    Query t attends to key s if all conditions that are set hold: same segment; s <= t, or s in the prefix, if causal;
    t - window < s < t + window. t is the query's index in the row, or its `q_positions`; s is the key's index, or its
    `kv_positions`.
    Segment 0 is padding.
    """

    q_segment_ids: Int[Array, "B T"] | None = None
    kv_segment_ids: Int[Array, "B S"] | None = None
    # keys that all queries of their segment attend to even if the mask is causal (prefix LM, T5 section 3.2.3)
    kv_prefix: Bool[Array, "B S"] | None = None
    # index of each query in the key sequence; set when decoding with a cache
    q_positions: Int[Array, "B T"] | None = None
    # index of each key, if it is not its place in the array; negative: no key
    kv_positions: Int[Array, "B S"] | None = None
    # the same rule as a matrix, computed once for all layers; with `causal` it must allow no later key
    dense: Bool[Array, "B 1 T S"] | None = None
    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    window: int | None = dataclasses.field(default=None, metadata={"static": True})


def matrix(mask: Mask, q_len: int, kv_len: int) -> Bool[Array, "B 1 T S"] | None:
    """The rule as a boolean matrix (leading dim 1 if it is the same for all rows); None if everything is allowed."""
    if mask.dense is not None:
        return mask.dense
    allowed = None
    if mask.causal or mask.window is not None:
        q = jnp.arange(q_len)[None] if mask.q_positions is None else mask.q_positions
        k = jnp.arange(kv_len)[None] if mask.kv_positions is None else mask.kv_positions
        distance = q[:, None, :, None] - k[:, None, None, :]
        if mask.causal:
            allowed = distance >= 0
            if mask.kv_prefix is not None:
                allowed = allowed | mask.kv_prefix[:, None, None, :]
        if mask.window is not None:
            allowed = both(allowed, jnp.abs(distance) < mask.window)
    if mask.kv_positions is not None:
        allowed = both(allowed, mask.kv_positions[:, None, None, :] >= 0)
    if mask.q_segment_ids is not None and mask.kv_segment_ids is not None:
        same = mask.q_segment_ids[:, None, :, None] == mask.kv_segment_ids[:, None, None, :]
        allowed = both(allowed, same)
    return allowed


def both(a: Array | None, b: Array | None) -> Array | None:
    """The conjunction of two masks; None allows everything."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def additive(allowed: Bool[Array, "..."]) -> Float[Array, "..."]:
    """0 where attention is allowed, MASKED elsewhere."""
    return jnp.where(allowed, 0.0, MASKED).astype(jnp.float32)


def segments_from_padding(valid: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Segment ids of rows with one padded text each: 1 for text, 0 for padding."""
    return valid.astype(jnp.int32)
