"""Which tokens of a draft to accept, so that the text has the distribution of the model itself.

Letters: K proposed tokens, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def accept(
    key: Array,
    tokens: Int[Array, " K"],
    draft: Float[Array, "K V"],
    model: Float[Array, "K+1 V"],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many proposed tokens are kept, and the next token (Leviathan et al. 2023, 2211.17192, section 2.3).

    A token is kept with probability min(1, model / draft); the one after the kept ones is drawn from what the model
    has more of than the draft, or from the model if all are kept. Greedy decoding is the case of one-hot
    distributions.

    Args:
        key: random key.
        tokens: proposed by the draft.
        draft: probabilities that each was drawn from.
        model: the model's probabilities of each, and of the token after the last.
    """
    count = tokens.shape[0]
    keep_key, draw_key = jax.random.split(key)
    take = lambda table: jnp.take_along_axis(table, tokens[:, None], axis=1)[:, 0]
    is_kept = jax.random.uniform(keep_key, (count,)) * take(draft) < take(model[:count])
    kept = jnp.cumprod(is_kept.astype(jnp.int32)).sum()
    # beyond the last token the draft has nothing
    nothing = jnp.zeros_like(model[:1])
    rest = jnp.maximum(model[kept] - jnp.concatenate([draft, nothing])[kept], 0)
    # by rounding there may be nothing left where draft and model are the same
    rest = jnp.where(rest.sum() > 0, rest, model[kept])
    return kept, jax.random.categorical(draw_key, jnp.log(rest))
