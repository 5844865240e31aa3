"""Changes to the logits of the next token that depend on the tokens so far.

Letters: B rows, S room for tokens, V vocabulary, N tokens in a list.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def penalize_seen(
    logits: Float[Array, "B V"],
    tokens: Int[Array, "B S"],
    lengths: Int[Array, " B"],
    penalty: Float[Array, " B"],
) -> Float[Array, "B V"]:
    """Divides the positive and multiplies the negative logits of tokens that have occurred by `penalty`.

    The repetition penalty of CTRL (Keskar et al. 2019, 1909.05858, section 4.1), as transformers has it: the prompt
    counts. 1 changes nothing.

    Args:
        logits: of the next token.
        tokens: the prompt and what was generated.
        lengths: number of tokens in each row.
        penalty: the penalty of each row.
    """
    is_token = jnp.arange(tokens.shape[1]) < lengths[:, None]
    seen = _per_id(tokens, is_token, logits.shape[-1]) > 0
    factor = penalty[:, None]
    return jnp.where(seen, jnp.where(logits < 0, logits * factor, logits / factor), logits)


def penalize_frequent(
    logits: Float[Array, "B V"],
    tokens: Int[Array, "B S"],
    starts: Int[Array, " B"],
    lengths: Int[Array, " B"],
    presence: Float[Array, " B"],
    frequency: Float[Array, " B"],
) -> Float[Array, "B V"]:
    """Subtracts `presence` from the logits of generated tokens, and `frequency` times how often each was generated.

    As in OpenAI's protocol: tokens of the prompt, those before `starts`, do not count. 0 changes nothing.
    """
    index = jnp.arange(tokens.shape[1])
    is_generated = (index >= starts[:, None]) & (index < lengths[:, None])
    counts = _per_id(tokens, is_generated, logits.shape[-1])
    return logits - counts * frequency[:, None] - (counts > 0) * presence[:, None]


def ban_repeated_ngrams(
    logits: Float[Array, "B V"],
    tokens: Int[Array, "B S"],
    lengths: Int[Array, " B"],
    size: Int[Array, " B"],
) -> Float[Array, "B V"]:
    """Minus infinity for tokens that would complete a sequence of `size` tokens a second time; 0 bans nothing.

    As `no_repeat_ngram_size` of fairseq and transformers: the prompt counts.
    """
    index = jnp.arange(tokens.shape[1])
    ends = (index < lengths[:, None]) & (index >= size[:, None] - 1) & (size[:, None] > 0)

    def compare(back: Array, ends: Array) -> Array:
        """Keeps the entries whose predecessor `back` tokens before is the same as that of the next token."""
        before = jnp.roll(tokens, back, axis=1)
        newest = jnp.take_along_axis(tokens, jnp.maximum(lengths - back, 0)[:, None], axis=1)
        return ends & ((before == newest) | (back >= size[:, None]))

    ends = jax.lax.fori_loop(1, jnp.maximum(size.max(), 1), compare, ends)
    # a row with fewer tokens than its size has no such sequence
    ends = ends & (lengths >= size)[:, None]
    return jnp.where(_per_id(tokens, ends, logits.shape[-1]) > 0, -jnp.inf, logits)


def ban(
    logits: Float[Array, "B V"], ids: Int[Array, "B N"], is_banned: Bool[Array, "B N"]
) -> Float[Array, "B V"]:
    """Minus infinity for the listed tokens of each row, where they are banned."""
    return jnp.where(_per_id(ids, is_banned, logits.shape[-1]) > 0, -jnp.inf, logits)


def allow(logits: Float[Array, "B V"], bits: Int[Array, "B W"]) -> Float[Array, "B V"]:
    """Minus infinity for the tokens whose bit is 0; token i has bit i % 32 of the 32-bit word i // 32."""
    index = jnp.arange(logits.shape[-1])
    words = bits.astype(jnp.uint32)[:, index // 32]
    return jnp.where((words >> (index % 32).astype(jnp.uint32)) & 1 > 0, logits, -jnp.inf)


def _per_id(ids: Int[Array, "B N"], counted: Bool[Array, "B N"], vocab_size: int) -> Array:
    """How often each id of the vocabulary occurs among the counted ones [B, V], in float32."""
    rows = jnp.arange(ids.shape[0])[:, None]
    counts = jnp.zeros((ids.shape[0], vocab_size), jnp.float32)
    return counts.at[rows, ids].add(counted.astype(jnp.float32), mode="drop")
