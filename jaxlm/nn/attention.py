"""Multi-head attention as a module: projections, rotary positions, an explicit key/value cache.

Letters: B batch, T query positions, S key positions, D model width, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.layers import (
    HeadNorm,
    Norm,
    dropout,
    kernel,
    product,
    residual_std,
    with_adapter,
)
from jaxlm.nn.relative import Relative, bias_of, bias_table, disentangled_bias
from jaxlm.nn.remat import named
from jaxlm.nn.tap import Tap, passed
from jaxlm.ops import attention, masks, positions, target
from jaxlm.ops.linear import linear
from jaxlm.sharding import constrain, is_whole, shards


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far in one layer, by head, because attention multiplies head by head.

    The token at position p has entry p modulo S, so that a layer with a window needs only the last entries.
    """

    key: Float[Array, "B K S H"]
    value: Float[Array, "B K S H"]
    # in a decoder with cross-attention: keys and values of the memory, computed once
    memory: Cache | None = None


def write_cache(
    cache: Cache, key: Float[Array, "B T K H"], value: Float[Array, "B T K H"], at: Int[Array, " B"]
) -> Cache:
    """Writes the entries of T new tokens to each row, the first at position `at`; T > 1 must not pass the end."""
    at = at % cache.key.shape[2]

    def put(old: Array, new: Array) -> Array:
        new = new.swapaxes(1, 2).astype(old.dtype)
        write = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
        if target.platform() != "tpu":
            return jax.vmap(write)(old, new, at)
        # on a TPU the vmapped update is a scatter, which runs as a serial loop (openxla/xla#12982)
        for row in range(old.shape[0]):
            old = jax.lax.dynamic_update_slice(old, new[row][None], (row, 0, at[row], 0))
        return old

    written = put(cache.key, key), put(cache.value, value)
    if target.platform() == "cpu":
        # else XLA merges the update of a single row into its use as well, and copies the whole cache for that
        written = jax.lax.optimization_barrier(written)
    return cache._replace(key=written[0], value=written[1])


def entry_positions(newest: Int[Array, " B"], length: int) -> Int[Array, "B S"]:
    """Position of the token in each of the `length` entries of a cache; negative in entries that have none yet."""
    return newest[:, None] - (newest[:, None] - jnp.arange(length)) % length


def _constrain(entries: Float[Array, "B K S H"]) -> Float[Array, "B K S H"]:
    return constrain(entries, "batch", "kv_heads", None, "head_dim")


def _for_each_shard(heads: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
    """Keys or values, each head repeated if the mesh splits the query heads into more parts than there are."""
    parts = shards("heads")
    if not is_whole("kv_heads", heads.shape[2], parts):
        return heads
    heads = jnp.repeat(heads, parts // heads.shape[2], axis=2)
    return constrain(heads, "batch", "seq", "kv_heads", "head_dim")


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
        bias: Float[Array, "B N #T S"] | None = None,
        relative: Relative | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Returns the output, to be added to the residual stream, and the updated cache.

        In self-attention the keys and values of this call are written to the cache at `mask.q_positions` (without a
        cache, None is returned); in cross-attention the cache has the memory's. A memory given as a `Cache` is not
        projected again.
        """
        c = self.config
        q = self._project("query", x, c.num_heads)
        q = self._norm("q_norm", q)
        if rope is not None:
            q = positions.rope(q, rope, pairs=c.rope_pairs)
        q = constrain(q, "batch", "seq", "heads", "head_dim")
        if relative is not None and c.distance_scores == "by_layer":
            bias = bias_of(bias_table(self, c), c, relative)
        options: Any = dict(bias=bias, scale=c.score_scale, softcap=c.attention_softcap)
        if c.attention_sinks:
            init = nn.initializers.normal(c.init_std)
            options["sinks"] = self.param("sinks", init, (c.num_heads,), jnp.float32)
        if isinstance(memory, Cache):
            cache = entries = memory
        else:
            entries = None
            k, v = self._keys_and_values(x if memory is None else memory, rope)
            v = passed(tap, "values", v)
            if memory is not None:
                cache = Cache(k.swapaxes(1, 2), v.swapaxes(1, 2))
            elif relative is not None and c.distance_scores == "disentangled":
                options["bias"] = self._disentangled_bias(q, k, relative, key)
            elif cache is not None:
                assert mask.q_positions is not None
                cache = entries = write_cache(cache, k, v, mask.q_positions[:, 0])
        if entries is None:
            k, v = _for_each_shard(k), _for_each_shard(v)
        if entries is not None:
            key_entries, value_entries = _constrain(entries.key), _constrain(entries.value)
            cache = entries._replace(key=key_entries, value=value_entries)
            mixed = attention.attend_to_cache(q, key_entries, value_entries, mask, **options)
        else:
            options |= dict(dropout=c.attention_dropout, key=key)
            if tap is not None and tap.wants("attention"):
                options["tap"] = functools.partial(tap, "attention")
            mixed = attention.attend(
                q, k, v, mask, **options, implementation=self.compute.attention
            )
        mixed = passed(tap, "heads", mixed)
        init, shape = nn.initializers.normal(residual_std(c)), (c.num_heads, c.head_width, c.dim)
        out = kernel(self, "out", init, shape)
        bias = None
        if "attn_out" in c.biases:
            bias = self.param("out_bias", nn.initializers.zeros, (c.dim,), jnp.float32)
        return named(product(self.compute)(mixed, out, bias, dims=2), "out"), cache

    def _keys_and_values(self, x: Array, rope: tuple[Array, Array] | None) -> tuple[Array, Array]:
        c = self.config
        k = self._project("key", x, c.kv_heads)
        v = self._project("value", x, c.kv_heads)
        k = self._norm("k_norm", k)
        if rope is not None:
            k = positions.rope(k, rope, pairs=c.rope_pairs)
        k = constrain(k, "batch", "seq", "kv_heads", "head_dim")
        return k, constrain(v, "batch", "seq", "kv_heads", "head_dim")

    def _norm(self, name: str, x: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
        """The norm of queries or keys, if there is one."""
        if "qk" in self.config.extra_norms:
            return Norm(self.config, name=name)(x)
        if "qk_whole" in self.config.extra_norms:
            return Norm(self.config, name=name)(x.reshape(*x.shape[:2], -1)).reshape(x.shape)
        if "qk_by_head" in self.config.extra_norms:
            return HeadNorm(self.config, name=name)(x)
        return x

    def _disentangled_bias(
        self, q: Array, k: Array, relative: Relative, key: Array | None
    ) -> Array:
        c = self.config
        assert relative.vectors is not None
        key = None if key is None else jax.random.fold_in(key, 1)
        dropped = dropout(relative.vectors.astype(q.dtype), c.dropout, key)

        def project(name: str, vectors: Array) -> Array:
            if c.relative_projections == "own":
                return self._project(f"position_{name}", vectors, c.num_heads)
            params = self.variables["params"]
            return linear(vectors, with_adapter(params, name), params.get(f"{name}_bias"))

        relative = dataclasses.replace(relative, vectors=dropped)
        bias = disentangled_bias(c, relative, q, k, project)
        return constrain(bias, "batch", "heads", "seq", None)

    def _project(self, name: str, x: Array, heads: int) -> Array:
        c = self.config
        shape = (c.dim, heads, c.head_width)
        weights = kernel(self, name, nn.initializers.normal(c.init_std), shape)
        bias = None
        if "qkv" in c.biases:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, shape[1:], jnp.float32)
        return named(product(self.compute)(x, weights, bias), name)
