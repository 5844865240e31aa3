"""What a score loses without a token: occlusion, and value zeroing inside the model.

Letters: B rows, T positions, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxlm.explain.gradients import Inputs, Score


def without(x: Inputs, absent: Inputs, removed: dict[str, Bool[Array, "B T"]]) -> Inputs:
    """Embeddings with those of the removed tokens replaced by that of an absent token [D]."""
    return {name: jnp.where(removed[name][..., None], absent[name], e) for name, e in x.items()}


def occlusion(score: Score, x: Inputs, absent: Inputs, *, together: int | None = None) -> Inputs:
    """s(x) - s(x without token t), for each token by itself: leave one out (Zeiler and Fergus 2014, 1311.2901,
    section 4.2; for text Li et al. 2016, 1612.08220); `together` passes at a time, None: one after another."""
    whole = score(x)

    def attributions(name: str) -> Float[Array, "B T"]:
        length = x[name].shape[1]

        def loss(t: Array) -> Float[Array, " B"]:
            removed = (jnp.arange(length) == t)[:, None]
            return whole - score(x | {name: jnp.where(removed, absent[name], x[name])})

        size = together and min(length, together)
        return jax.lax.map(loss, jnp.arange(length), batch_size=size).T

    return {name: attributions(name) for name in x}


def value_zeroing(
    after: Callable[[Array], Float[Array, "L B T D"]],
    plain: Float[Array, "L B T D"],
    keys: int,
    *,
    together: int | None = None,
) -> Float[Array, "L B T S"]:
    """How far each position turns in a layer when the value of one key is zero there, and nothing else changes:
    1 - cos(y_t, y_t without s) (Mohebbi et al. 2023, 2301.12971, before the rows are normalised).

    Args:
        after: key -> the states that leave each layer if the value of this key is zero in this layer alone.
        plain: the states without that.
        keys: number of keys S.
        together: passes at a time; None: one after another.
    """
    change = lambda key: 1 - _cosine(after(key), plain)
    size = together and min(keys, together)
    found = jax.lax.map(change, jnp.arange(keys), batch_size=size)
    return jnp.maximum(jnp.moveaxis(found, 0, -1), 0.0)


def _cosine(a: Float[Array, "... D"], b: Float[Array, "... D"]) -> Float[Array, "..."]:
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / jnp.maximum(lengths, 1e-12)
