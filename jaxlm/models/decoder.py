"""The decoder: a causal stack; GPT-2, Llama or anything between by its config.

Letters: B batch, T positions, S entries of the cache, D model width, K key/value heads, H head width.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.models.embeddings import TokenEmbeddings
from jaxlm.nn.attention import Cache
from jaxlm.nn.layers import Norm, compute_dtype
from jaxlm.nn.tap import Tap
from jaxlm.nn.transformer import Memory, Stack
from jaxlm.ops import masks


class Decoder(nn.Module):
    """Tokens to hidden states, each depending on its own token and those before it."""

    config: DecoderConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"] | Float[Array, "B T D"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        memory: Float[Array, "B S D"] | None = None,
        memory_segment_ids: Int[Array, "B S"] | None = None,
        prefix: Bool[Array, "B T"] | None = None,
        added: Float[Array, "B T D"] | None = None,
        cache: tuple[Cache, ...] | None = None,
        text_lengths: Int[Array, " B"] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Cache, ...] | None]:
        """Hidden states, and the cache with these tokens added if one was given.

        Args:
            tokens: ids, or embeddings of tokens.
            segment_ids: which document of a packed row a token belongs to; 0 is padding. None: one document a row.
            positions: index of each token in its document; None: its index in the row. With a cache, the index at which
                it is written to the cache, contiguous in each row.
            memory: hidden states of an encoder, for cross-attention. None if the cache holds their keys and values.
            memory_segment_ids: a token attends to the memory of its own segment; without `segment_ids`, to all but 0.
            prefix: tokens that every token of their document attends to, earlier ones too; with a cache, of its size.
            added: added to the embeddings (the latent of a VAE).
            cache: from `empty_cache`; keys and values of earlier tokens are read from it.
            text_lengths: with a cache, the tokens of each whole text, by which longrope chooses frequencies; None: few
                enough for the first ones.
            key: random key for dropout; None: no dropout.
            tap: reads and changes values inside, see `models.observe`.
        """
        c = self.config
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        mask = masks.Mask(
            causal=True,
            q_segment_ids=segment_ids,
            kv_segment_ids=segment_ids,
            kv_prefix=prefix,
            q_positions=None if cache is None else positions,
        )
        reads = memory is not None or (cache is not None and cache[0].memory is not None)
        memory_mask = masks.Mask()
        if memory_segment_ids is not None:
            own = jnp.ones(tokens.shape[:2], jnp.int32) if segment_ids is None else segment_ids
            memory_mask = masks.Mask(q_segment_ids=own, kv_segment_ids=memory_segment_ids)
        x = TokenEmbeddings(c, self.compute, name="embed")(tokens, positions, key=key)
        x = x if added is None else x + added.astype(x.dtype)
        x, cache = Stack(c, self.compute, name="stack")(
            x,
            mask,
            token_positions=positions,
            memory=Memory(memory, memory_mask) if reads else None,
            cache=cache,
            text_lengths=text_lengths,
            key=key,
            tap=tap,
        )
        return (Norm(c, name="final_norm")(x) if "final" in c.extra_norms else x), cache


def empty_cache(
    config: DecoderConfig,
    batch_size: int,
    length: int,
    compute: ComputeConfig | None = None,
    *,
    local_length: int | None = None,
) -> tuple[Cache, ...]:
    """Room for `length` tokens a row in each layer: keys and values [B, K, S, H] in the compute dtype.

    Layers with a window get `local_length` entries; the default, and the maximum, is `length`.
    """
    dtype = compute_dtype(compute or ComputeConfig())

    def empty(is_local: bool) -> Cache:
        entries = min(length, local_length or length) if is_local else length
        shape = (batch_size, config.kv_heads, entries, config.head_width)
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    return tuple(empty(is_local) for is_local in config.local_layers)
