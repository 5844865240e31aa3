"""From logits to a token: greedy, or a draw after temperature, top-k and top-p."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
