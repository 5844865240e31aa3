"""Multi-head attention as a module: projections, rotary positions, an explicit key/value cache.

Letters: B batch, T query positions, S key positions, D model width, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.layers import Norm, residual_std
from jaxlm.ops import attention, masks, positions
from jaxlm.ops.linear import linear
from jaxlm.sharding import constrain


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, for one layer or, with a dim L in front, for all."""

    key: Float[Array, "B S K H"]
    value: Float[Array, "B S K H"]
    # in a decoder with cross-attention: keys and values of the memory, computed once
    memory: Cache | None = None


def write_cache(
    cache: Cache, key: Float[Array, "B T K H"], value: Float[Array, "B T K H"], at: Int[Array, " B"]
) -> Cache:
    """Writes T new entries to each row of the cache, starting at the row's index `at`."""
    put = jax.vmap(lambda old, new, i: jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=0))
    return cache._replace(
        key=put(cache.key, key.astype(cache.key.dtype), at),
        value=put(cache.value, value.astype(cache.value.dtype), at),
    )


class Attention(nn.Module):
    """Self-attention over `x`, or cross-attention from `x` to `memory`."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: masks.Mask,
        *,
        memory: Float[Array, "B S D"] | Cache | None = None,
        rope: tuple[Array, Array] | None = None,
        bias: Float[Array, "B N T S"] | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Returns the output, to be added to the residual stream, and the updated cache.

        In self-attention the keys and values of this call are written to the cache at `mask.q_positions` (without a
        cache, None is returned); in cross-attention the cache has the memory's. A memory given as a `Cache` is not
        projected again.
        """
        c = self.config
        q = self._project("query", x, c.num_heads)
        if "qk" in c.extra_norms:
            q = Norm(c, name="q_norm")(q)
        if rope is not None:
            q = positions.rope(q, rope)
        q = constrain(q, "batch", "seq", "heads", "head_dim")
        if isinstance(memory, Cache):
            k, v = memory.key, memory.value
        else:
            k, v = self._keys_and_values(x if memory is None else memory, rope)
        if memory is not None:
            cache = Cache(k, v)
        elif cache is not None:
            assert mask.q_positions is not None
            cache = write_cache(cache, k, v, mask.q_positions[:, 0])
            k, v = cache.key, cache.value
        k, v = k.astype(q.dtype), v.astype(q.dtype)
        mixed = attention.attend(
            q,
            k,
            v,
            mask,
            bias=bias,
            scale=c.attention_scale,
            softcap=c.attention_softcap,
            dropout=c.attention_dropout,
            key=key,
            implementation=self.compute.attention,
        )
        out = self.param(
            "out",
            nn.initializers.normal(residual_std(c)),
            (c.num_heads, c.head_width, c.dim),
            jnp.float32,
        )
        bias = None
        if "attn_out" in c.biases:
            bias = self.param("out_bias", nn.initializers.zeros, (c.dim,), jnp.float32)
        return linear(mixed, out, bias, dims=2), cache

    def _keys_and_values(self, x: Array, rope: tuple[Array, Array] | None) -> tuple[Array, Array]:
        c = self.config
        k = self._project("key", x, c.kv_heads)
        v = self._project("value", x, c.kv_heads)
        if "qk" in c.extra_norms:
            k = Norm(c, name="k_norm")(k)
        if rope is not None:
            k = positions.rope(k, rope)
        k = constrain(k, "batch", "seq", "kv_heads", "head_dim")
        return k, constrain(v, "batch", "seq", "kv_heads", "head_dim")

    def _project(self, name: str, x: Array, heads: int) -> Array:
        c = self.config
        shape = (c.dim, heads, c.head_width)
        kernel = self.param(name, nn.initializers.normal(c.init_std), shape, jnp.float32)
        bias = None
        if "qkv" in c.biases:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, shape[1:], jnp.float32)
        return linear(x, kernel, bias)
