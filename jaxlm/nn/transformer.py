"""The block, and the stack of blocks scanned over one period of the layer pattern.

Letters: B batch, T positions, S positions of the memory, D model width, N heads, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.attention import Attention, Cache, entry_positions
from jaxlm.nn.convolution import Convolution, has_convolution
from jaxlm.nn.layer_scan import (
    find_repetition,
    layers_in_order,
    scan_between,
    scan_layers,
    unstack,
)
from jaxlm.nn.layers import MLP, Norm, between_layers, dropout, split_key
from jaxlm.nn.moe import MoE
from jaxlm.nn.relative import Relative, bias_of, bias_table
from jaxlm.nn.tap import Tap, passed, within
from jaxlm.ops import attention, masks, positions, target
from jaxlm.params import dense_block
from jaxlm.sharding import constrain

# What may be saved for the backward pass instead of being recomputed.
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class LayerKind(NamedTuple):
    """How a layer differs from the others in its stack; static."""

    is_local: bool
    has_attn_norm: bool
    has_rope: bool
    # whether a convolution of its input is added to its output
    has_convolution: bool
    # its block, where several layers have the same one; None: each layer has its own
    block: int | None
    # whether it has a single MLP where other layers have experts
    is_dense: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionInputs:
    """Inputs shared by the self-attention of all layers of one kind."""

    mask: masks.Mask
    # cosines and sines of the rotary positions
    rope: tuple[Array, Array] | None
    # bias by relative position, added to the scores
    bias: Float[Array, "B N T S"] | None
    # what each layer makes its own bias of
    relative: Relative | None = None
    # which tokens are text and not padding, for experts; None: all
    real: Bool[Array, "B T"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Input of cross-attention, and the mask over its positions."""

    # None: the keys and values are in the cache
    states: Float[Array, "B S D"] | None
    mask: masks.Mask


class Block(nn.Module):
    """Attention, cross-attention if there is a memory, and MLP, each with its norms and a residual connection."""

    config: TransformerConfig
    compute: ComputeConfig
    has_attn_norm: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        inputs: AttentionInputs,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Returns the residual stream after this layer and the updated cache of the layer.

        Args:
            x: the residual stream.
            inputs: inputs of self-attention besides `x`.
            memory: input of cross-attention.
            cache: keys and values of earlier tokens in this layer.
            key: random key for dropout; None: no dropout.
            tap: reads and changes values of this layer.
        """
        c = self.config
        attn_key, attn_out_key, mlp_out_key, cross_key, cross_out_key = split_key(key, 5)
        h = self._input("attn", x) if self.has_attn_norm else x
        attn, new_cache = Attention(c, self.compute, name="attn")(
            h,
            inputs.mask,
            rope=inputs.rope,
            bias=inputs.bias,
            relative=inputs.relative,
            cache=cache,
            key=attn_key,
            tap=tap,
        )
        attn = passed(tap, "attention_out", attn)
        y = passed(tap, "residual_middle", self._add("attn", x, attn, attn_out_key))
        if memory is not None:
            states = cache.memory if cache is not None and cache.memory else memory.states
            cross, memory_cache = Attention(c, self.compute, name="cross_attn")(
                self._input("cross_attn", y),
                memory.mask,
                memory=states,
                key=cross_key,
                tap=within(tap, "cross_"),
            )
            cross = passed(tap, "cross_attention_out", cross)
            y = passed(tap, "residual_cross", self._add("cross_attn", y, cross, cross_out_key))
            if new_cache is not None:
                new_cache = new_cache._replace(memory=memory_cache)
        if not c.shared_norm:
            h = self._input("mlp", x if c.parallel_block else y)
        if c.num_experts is None:
            mlp = MLP(c, self.compute, name="mlp")(h, tap=tap)
        else:
            # a key of its own: the others are split from the same one
            noise_key = None if key is None else jax.random.fold_in(key, 0x17)
            mlp = MoE(c, self.compute, name="mlp")(h, real=inputs.real, key=noise_key)
        mlp = passed(tap, "mlp_out", mlp)
        y = self._add("mlp", y, mlp, mlp_out_key)
        return between_layers(y, self.compute), new_cache

    def _input(self, name: str, x: Array) -> Array:
        """Input of a sub-layer: the residual stream, normalized unless the norms come after the sub-layers."""
        if self.config.norm_place not in ("post", "out"):
            x = Norm(self.config, name=f"{name}_norm")(x)
        return constrain(x, "batch", "seq", None) if self.compute.sequence_parallel else x

    def _add(self, name: str, x: Array, y: Array, key: Array | None) -> Array:
        """Adds a sub-layer's output to the residual stream."""
        c = self.config
        if c.norm_place in ("both", "out"):
            y = Norm(c, name=f"{name}_out_norm")(y)
        if c.residual_scale != 1:
            y = y * jnp.asarray(c.residual_scale, y.dtype)
        x = x + dropout(y, c.dropout, key)
        if self.compute.sequence_parallel:
            x = between_layers(x, self.compute)
        return Norm(c, name=f"{name}_norm")(x) if c.norm_place == "post" else x


class Stack(nn.Module):
    """All blocks: their parameters are stacked in a leading dim L, and one period of the layer pattern is compiled."""

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
        cache: tuple[Cache, ...] | None = None,
        text_lengths: Int[Array, " B"] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Cache, ...] | None]:
        """Runs the blocks, whose parameters are stacked in a leading dim L, or a tuple of those of each layer.

        With `layer_groups` these are the blocks of the groups.

        Args:
            x: embeddings.
            mask: mask of the global layers; local layers add the config's window to it.
            token_positions: position of each token in its document, for rotary positions.
            memory: input of cross-attention.
            cache: keys and values of each layer.
            text_lengths: with a cache, the tokens of each whole text; see `Decoder`.
            key: random key for dropout; None: no dropout.
            tap: reads and changes values of the layers, which then run without a loop and without recomputation.
        """
        c = self.config
        kinds = tuple(
            LayerKind(
                is_local,
                c.first_attn_norm or i > 0,
                has_rope,
                i == 0 and has_convolution(c),
                None if c.layer_groups is None else block,
                i in c.dense_layers,
            )
            for i, (is_local, has_rope, block) in enumerate(
                zip(c.local_layers, c.rotary_layers, c.block_of_layer)
            )
        )
        lengths = dict.fromkeys(c.local_layers, x.shape[1])
        if cache is not None:
            lengths = {local: entry.key.shape[2] for local, entry in zip(c.local_layers, cache)}
        inputs = self._attention_inputs(mask, token_positions, x.shape[1], lengths, text_lengths)
        if self.is_initializing():
            # all layers have the same parameters, regardless of their kind
            stacked = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, nn.broadcast),
                length=c.layer_groups or c.num_layers - len(c.dense_layers),
            )(c, self.compute, name="blocks")
            for i in c.dense_layers:
                x, _ = Block(self._dense, self.compute, name=dense_block(i))(
                    x, inputs[kinds[i].is_local], memory
                )
            if kinds[0].has_convolution:
                Convolution(c, name="convolution")(x, x, mask.q_segment_ids)
            return stacked(x, inputs[kinds[0].is_local], memory)[0], None

        def run(
            kind: LayerKind, x: Array, layer: tuple, tap: Tap | None = None
        ) -> tuple[Array, Cache | None]:
            params, cache, key = layer
            params = params if kind.block is None else own[kind.block]
            config = self._dense if kind.is_dense else c
            block = Block(config, self.compute, kind.has_attn_norm, parent=None, name="blocks")
            apply: Callable = block.apply
            if tap is None:
                apply = self._with_remat(apply, len(set(kinds)) == 1)
            else:
                apply = functools.partial(apply, tap=tap)
            shared = inputs[kind.is_local]
            shared = shared if kind.has_rope else dataclasses.replace(shared, rope=None)
            x = passed(tap, "residual_before", x)
            y, cache = apply({"params": params}, x, shared, memory, cache, key)
            if kind.has_convolution:
                convolution = Convolution(c, parent=None, name="convolution")
                own_params = {"params": self.variables["params"]["convolution"]}
                y = convolution.apply(own_params, x, y, mask.q_segment_ids, key)
            return passed(tap, "residual_after", y), cache

        keys = None if key is None else jax.random.split(key, c.num_layers)
        blocks = self.variables["params"]["blocks"]
        own: tuple = ()
        has_loop = cache is None and tap is None
        if c.layer_groups is not None:
            # outside of the loop over the layers of a group, so that the parameters are not repeated for it
            own = blocks if isinstance(blocks, tuple) else unstack(blocks)
            blocks = jnp.arange(c.num_layers) if has_loop else c.block_of_layer
        if not has_loop or isinstance(blocks, tuple):
            # a slice of stacked arrays costs more than the product with it
            blocks = layers_in_order({**self.variables["params"], "blocks": blocks})
            caches: list[Any] = []
            for i, kind in enumerate(kinds):
                layer = (blocks[i], cache and cache[i], None if keys is None else keys[i])
                x, new = run(kind, x, layer, None if tap is None else tap.at(i))
                caches.append(new)
            return x, None if cache is None else tuple(caches)
        unroll = self._unroll()
        if self.compute.remat == "none":
            # no loop within a period: its copies of weights and activations cost time and memory, which is only worth
            # it with recomputation, where a loop limits the memory to one layer
            unroll = max(unroll, find_repetition(kinds).period)
        if not c.dense_layers:
            return scan_layers(run, x, (blocks, None, keys), kinds, unroll=unroll)[0], None
        dense = {i: self.variables["params"][dense_block(i)] for i in c.dense_layers}
        apart = lambda kind, x, layer: run(kind, x, (layer[0], None, layer[1]))
        return scan_between(apart, x, blocks, dense, keys, kinds, unroll=unroll), None

    def _with_remat(self, apply: Callable, has_one_kind: bool) -> Callable:
        """The function of a block, recomputed in the backward pass according to the config."""
        if self.compute.remat == "none":
            return apply
        # a loop with one layer as its body already prevents XLA from merging the two computations
        in_loop = has_one_kind and self._unroll() < self.config.num_layers
        policy = REMAT_POLICIES[self.compute.remat]
        return jax.checkpoint(apply, policy=policy, prevent_cse=not in_loop)

    @property
    def _dense(self) -> TransformerConfig:
        """The config of the blocks without experts, of layers that have them and layers that do not."""
        return self.config.without_experts(self.config.dense_mlp_dim or self.config.mlp_width)

    def _unroll(self) -> int:
        """Layers per step of the scan. On CPUs and GPUs its copies of parameters and activations cost time.

        With recomputation the loop is needed: in unrolled code XLA for CPUs merges the two computations.
        """
        layers = self.config.num_layers
        if self.compute.unroll:
            return min(self.compute.unroll, layers)
        if self.compute.remat != "none":
            return 1
        # what is unrolled takes longer to compile
        return layers if layers <= {"cpu": 12, "gpu": 32, "tpu": 0}[target.platform()] else 1

    def _attention_inputs(
        self,
        mask: masks.Mask,
        token_positions: Int[Array, "B T"],
        q_len: int,
        kv_lens: dict[bool, int],
        text_lengths: Int[Array, " B"] | None,
    ) -> dict[bool, AttentionInputs]:
        """Shared inputs, computed once for the global layers (False) and once for the local layers (True)."""
        c = self.config
        vectors = self._relative_vectors()
        table = bias_table(self, c) if c.distance_scores == "shared" else None
        segments = None if c.num_experts is None else mask.q_segment_ids
        real = None if segments is None else jnp.greater(segments, 0)
        inputs = {}
        for is_local, kv_len in kv_lens.items():
            rule = dataclasses.replace(mask, window=c.window) if is_local else mask
            if mask.q_positions is not None:
                newest = mask.q_positions[:, -1]
                rule = dataclasses.replace(rule, kv_positions=entry_positions(newest, kv_len))
            bias = relative = None
            if table is not None:
                bias = bias_of(table, c, Relative.of(rule, q_len, kv_len))
            elif c.distance_scores is not None:
                relative = Relative.of(rule, q_len, kv_len, vectors)
            # the plain implementation needs a matrix: compute it once, not in each layer
            has_bias = c.distance_scores is not None or c.positions == "alibi"
            is_plain = attention.resolve(self.compute.attention) == "xla"
            if is_plain or has_bias or mask.q_positions is not None:
                rule = masks.Mask(
                    dense=masks.matrix(rule, q_len, kv_len),
                    q_positions=mask.q_positions,
                    causal=mask.causal and mask.kv_prefix is None,
                )
            theta = c.rope_local_theta if is_local and c.rope_local_theta else c.rope_theta
            scaling = None if is_local and c.rope_local_theta else c.rope_scaling
            rope = None
            if c.positions == "rotary":
                lengths = text_lengths
                if scaling is not None and scaling.by_length and mask.q_positions is None:
                    lengths = _lengths(token_positions, mask)
                rope = positions.rope_tables(
                    token_positions, c.rotary_dim, theta, scaling, lengths=lengths
                )
            if c.positions == "alibi":
                bias = self._alibi(mask, token_positions, kv_len)
            inputs[is_local] = AttentionInputs(rule, rope, bias, relative, real)
        return inputs

    def _alibi(
        self, mask: masks.Mask, token_positions: Int[Array, "B T"], kv_len: int
    ) -> Float[Array, "B N 1 S"]:
        """ALiBi's bias of the keys: those of this call, or of the entries of a cache."""
        c, keys = self.config, token_positions
        if mask.q_positions is not None:
            keys = jnp.maximum(entry_positions(mask.q_positions[:, -1], kv_len), 0)
        return positions.alibi_bias(keys, c.num_heads, scale=c.alibi_scale, dtype=c.alibi_dtype)

    def _relative_vectors(self) -> Float[Array, "R D"] | None:
        """The vectors of the buckets of distances, for disentangled attention."""
        c = self.config
        if c.distance_scores != "disentangled":
            return None
        init, shape = nn.initializers.normal(c.init_std), (c.relative_buckets, c.dim)
        vectors = self.param("relative_embedding", init, shape, jnp.float32)
        if "relative" in c.extra_norms:
            vectors = Norm(c, name="relative_norm")(vectors)
        return vectors


def _lengths(token_positions: Int[Array, "B T"], mask: masks.Mask) -> Int[Array, " B"]:
    """Tokens of the longest text of each row, without padding."""
    if mask.q_segment_ids is not None:
        token_positions = jnp.where(mask.q_segment_ids > 0, token_positions, -1)
    return token_positions.max(-1) + 1
