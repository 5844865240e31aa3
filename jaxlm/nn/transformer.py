"""The block, and the stack of blocks scanned over layers.

Letters: B batch, T positions, S positions of the memory, D model width, N heads, L layers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.attention import Attention, Cache
from jaxlm.nn.layers import MLP, Norm, dropout, split_key
from jaxlm.nn.moe import MoE
from jaxlm.ops import attention, masks, positions, target
from jaxlm.sharding import constrain

# What the backward pass may keep instead of computing it again.
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reach:
    """What all layers of one kind (global or local) share: mask, rotary tables, relative positions."""

    mask: masks.Mask
    rope: tuple[Array, Array] | None
    bias: Float[Array, "B N T S"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """What cross-attention reads, and who may read what."""

    # None: its keys and values are in the cache
    states: Float[Array, "B S D"] | None
    mask: masks.Mask


class Block(nn.Module):
    """Attention, cross-attention if there is a memory, and MLP; each with a residual connection and norms where the
    config puts them."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        per_layer: tuple[Cache | None, Array | None, Array | None, Array | None],
        reaches: tuple[Reach, ...],
        memory: Memory | None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """One step of the scan over layers.

        Args:
            x: the residual stream.
            per_layer: this layer's cache, random key (None: no dropout), whether it is local, and whether its attention
                reads the stream as it is (None: no).
            reaches: one for all layers, or (global, local).
            memory: for cross-attention.
        """
        c = self.config
        cache, key, is_local, is_raw = per_layer
        attn_key, attn_out_key, mlp_out_key, cross_key, cross_out_key = split_key(key, 5)
        reach = reaches[0] if len(reaches) == 1 else _choose(is_local, *reaches)

        h = self._input("attn", x)
        h = h if is_raw is None else jnp.where(is_raw, x, h)
        attn, kept = Attention(c, self.compute, name="attn")(
            h, reach.mask, rope=reach.rope, bias=reach.bias, cache=cache, key=attn_key
        )
        y = self._add("attn", x, attn, attn_out_key)
        if memory is not None:
            states = cache.memory if cache is not None and cache.memory else memory.states
            cross, kept_memory = Attention(c, self.compute, name="cross_attn")(
                self._input("cross_attn", y), memory.mask, memory=states, key=cross_key
            )
            y = self._add("cross_attn", y, cross, cross_out_key)
            if kept is not None:
                kept = kept._replace(memory=kept_memory)
        kind = MLP if c.num_experts is None else MoE
        mlp = kind(c, self.compute, name="mlp")(self._input("mlp", x if c.parallel_block else y))
        y = self._add("mlp", y, mlp, mlp_out_key)
        return constrain(y, "batch", "seq", None), kept

    def _input(self, name: str, x: Array) -> Array:
        """What a part reads of the residual stream."""
        return x if self.config.norm_place == "post" else Norm(self.config, name=f"{name}_norm")(x)

    def _add(self, name: str, x: Array, y: Array, key: Array | None) -> Array:
        """The residual stream with a part's output in it."""
        c = self.config
        if c.norm_place == "both":
            y = Norm(c, name=f"{name}_out_norm")(y)
        x = x + dropout(y, c.dropout, key)
        return Norm(c, name=f"{name}_norm")(x) if c.norm_place == "post" else x


def _choose(is_local: Any, everywhere: Reach, local: Reach) -> Reach:
    """The reach of one layer of a scan in which both kinds occur."""
    return jax.tree.map(lambda a, b: jnp.where(is_local, b, a), everywhere, local)


class Stack(nn.Module):
    """All blocks, scanned: their parameters are stacked in a dim L in front, and one block is compiled."""

    config: TransformerConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: masks.Mask,
        *,
        token_positions: Int[Array, "B T"],
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Runs the blocks.

        Args:
            x: embeddings.
            mask: for the global layers; local ones add the config's window to it.
            token_positions: of each token in its document, for rotary positions.
            memory: for cross-attention.
            cache: keys and values of all layers, with a dim L in front.
            key: random key for dropout; None: no dropout.
        """
        c = self.config
        kv_len = x.shape[1] if cache is None else cache.key.shape[2]
        reaches = self._reaches(mask, token_positions, x.shape[1], kv_len)
        is_local = jnp.asarray(c.local_layers) if len(reaches) > 1 else None
        is_raw = None if c.first_attn_norm else jnp.arange(c.num_layers) == 0
        keys = None if key is None else jax.random.split(key, c.num_layers)

        block = Block
        if self.compute.remat != "none":
            policy = REMAT_POLICIES[self.compute.remat]
            # a loop over layers keeps XLA from merging the two computations already
            block = nn.remat(Block, policy=policy, prevent_cse=self._unroll() == c.num_layers)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            unroll=self._unroll(),
        )(c, self.compute, name="blocks")
        x, kept = blocks(x, (cache, keys, is_local, is_raw), reaches, memory)
        if kept is not None and cache is not None and cache.memory is not None:
            # as it was, and not a copy made by the loop
            kept = kept._replace(memory=cache.memory)
        return x, kept

    def _unroll(self) -> int:
        """Layers per loop step. On a CPU the loop's copies of parameters cost more than compiling each layer.

        But where the backward pass is to recompute, only a loop makes it: XLA for CPUs merges what is unrolled.
        """
        layers = self.config.num_layers
        if self.compute.unroll:
            return min(self.compute.unroll, layers)
        flat = target.platform() == "cpu" and self.compute.remat == "none" and layers <= 12
        return layers if flat else 1

    def _reaches(self, mask, token_positions, q_len: int, kv_len: int) -> tuple[Reach, ...]:
        """What the layers share, worked out once: for all, or for global and local ones."""
        c = self.config
        kinds = sorted(set(c.local_layers))
        reaches = []
        bias = self._relative_bias(mask, q_len, kv_len) if c.positions == "relative" else None
        for is_local in kinds:
            rule = dataclasses.replace(mask, window=c.window) if is_local else mask
            # which kind a layer is, is known only inside the scan: kernels that take a rule cannot be told
            by_matrix = attention.resolve(self.compute.attention) == "xla" or bias is not None
            if by_matrix or len(kinds) > 1:
                dense = masks.matrix(rule, q_len, kv_len)
                if dense is None and len(kinds) > 1:  # both kinds must have a matrix to choose from
                    dense = jnp.ones((1, 1, 1, 1), bool)
                rule = masks.Mask(
                    dense=dense,
                    q_positions=mask.q_positions,
                    causal=mask.causal and mask.kv_prefix is None,
                )
            theta = c.rope_local_theta if is_local and c.rope_local_theta else c.rope_theta
            scaling = None if is_local and c.rope_local_theta else c.rope_scaling
            tables = None
            if c.positions == "rotary":
                tables = positions.rope_tables(token_positions, c.rotary_dim, theta, scaling)
            reaches.append(Reach(rule, tables, bias))
        return tuple(reaches)

    def _relative_bias(self, mask: masks.Mask, q_len: int, kv_len: int) -> Float[Array, "B N T S"]:
        """The bias of T5, by places in the row: documents of a packed row do not see each other."""
        c = self.config
        shape = (c.relative_buckets, c.num_heads)
        table = self.param("relative_bias", nn.initializers.normal(c.init_std), shape, jnp.float32)
        places = jnp.arange(q_len)[None] if mask.q_positions is None else mask.q_positions
        return positions.relative_bias(
            table, places, kv_len, causal=mask.causal, max_distance=c.relative_max_distance
        )
