"""From logits to tokens: greedy, or a draw after temperature, top-k and top-p; or of a whole sequence at once.

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
    """One token a row.

    Args:
        key: random key; not used when greedy.
        logits: scores of the vocabulary.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: draw among so many of the likeliest (Fan et al. 2018, 1805.04833).
        top_p: draw among the fewest likeliest that together have this probability (Holtzman et al. 2019, 1904.09751).
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
        # a token stays while those before it have less than top_p together: the first always does
        last = jnp.sum(before < top_p, -1, keepdims=True) - 1
        threshold = jnp.take_along_axis(ordered, last, axis=-1)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.random.categorical(key, logits)


def sample_places(
    key: Array,
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V D"],
    *,
    bias: Float[Array, " V"],
    vocab_size: int,
    shards: int = 1,
) -> Int[Array, "B T"]:
    """A token for each place from the softmax of its logits, never holding the logits of all places.

    Args:
        key: random key.
        hidden: what the logits are made from; no gradient goes back.
        unembedding: output table.
        bias: added to the logits.
        vocab_size: ids from here on are padding of the table and never drawn.
        shards: over how many devices the rows are spread; decides how many places are worked on at a time.
    """
    hidden, table = jax.lax.stop_gradient((hidden, unembedding.astype(hidden.dtype)))
    rows = max(hidden.shape[0] // shards, 1)
    chunks = losses.chunk_count(hidden.shape[1], rows * unembedding.shape[0])

    def draw(part):
        x, number = part
        logits = jnp.einsum("BTD,VD->BTV", x, table, preferred_element_type=jnp.float32) + bias
        logits = jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)
        return jax.random.categorical(jax.random.fold_in(key, number), logits)

    (split,) = losses.split_chunks(chunks, hidden)
    drawn = jax.lax.map(draw, (split, jnp.arange(chunks)))
    return jnp.swapaxes(drawn, 0, 1).reshape(hidden.shape[:2])
