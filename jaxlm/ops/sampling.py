"""Samples tokens from logits, greedily or with temperature, top-k and top-p, or at all positions of a sequence.

Letters: B rows, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.ops import losses


def sample(
    key: Array,
    logits: Float[Array, "B V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, " B"]:
    """One token per row.

    Args:
        key: random key; unused if greedy.
        logits: logits over the vocabulary.
        temperature: logits are divided by it; 0 is greedy.
        top_k: sample from this many of the most probable tokens (Fan et al. 2018, 1805.04833).
        top_p: sample from the fewest most probable tokens that sum to this (Holtzman et al. 2019, 1904.09751).
    """
    if temperature == 0:
        return jnp.argmax(logits, -1)
    logits = logits.astype(jnp.float32) / temperature
    if top_k is not None:
        kth = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if top_p is not None:
        ordered = jnp.sort(logits, -1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), -1) - jax.nn.softmax(ordered)
        # a token is kept while those before it sum to less than top_p, so the first is always kept
        last = jnp.sum(before < top_p, -1, keepdims=True) - 1
        threshold = jnp.take_along_axis(ordered, last, axis=-1)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.random.categorical(key, logits)


def sample_positions(
    key: Array,
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V D"],
    *,
    bias: Float[Array, " V"],
    vocab_size: int,
    shards: int = 1,
) -> Int[Array, "B T"]:
    """Samples a token for each position from the softmax of its logits, without materialising all logits at once.

    Args:
        key: random key.
        hidden: last hidden states; gradients are stopped.
        unembedding: output table.
        bias: added to the logits.
        vocab_size: ids of at least this are padding of the table and never sampled.
        shards: number of shards of the rows; determines the length of a chunk.
    """
    hidden, table = jax.lax.stop_gradient((hidden, unembedding.astype(hidden.dtype)))
    rows = max(hidden.shape[0] // shards, 1)
    chunks = losses.chunk_count(hidden.shape[1], rows * unembedding.shape[0])

    def sample_chunk(part):
        x, index = part
        logits = jnp.einsum("BTD,VD->BTV", x, table, preferred_element_type=jnp.float32) + bias
        logits = jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)
        return jax.random.categorical(jax.random.fold_in(key, index), logits)

    (split,) = losses.split_chunks(chunks, hidden)
    tokens = jax.lax.map(sample_chunk, (split, jnp.arange(chunks)))
    return jnp.swapaxes(tokens, 0, 1).reshape(hidden.shape[:2])
