"""Losses of vectors of texts that are to be near each other or far apart, as weighted sums over rows.

Letters: B rows, C candidates, S texts of a row, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# of a similarity that does not count: exp of it is 0
_NEVER = -1e30


def unit(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The vectors scaled to length 1; a vector of zeros stays."""
    square = jnp.square(x).sum(-1, keepdims=True)
    # the root's gradient at 0 is infinite
    return x / jnp.sqrt(jnp.maximum(square, 1e-24))


def info_nce(
    queries: Float[Array, "B D"],
    candidates: Float[Array, "C D"],
    counts: Bool[Array, "B C"],
    weights: Float[Array, " B"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Weighted sum over rows of -log softmax(cosine / temperature) at the row's own candidate, candidate i of row i.

    InfoNCE (van den Oord et al. 2018, 1807.03748, equation 4) with the other candidates of the batch as negatives
    (Henderson et al. 2017, 1705.00652, section 4.4).

    Args:
        queries: of any length.
        candidates: those of the rows, then any number of others.
        counts: which candidates are compared with a row; the row's own always is.
        weights: 0 for rows that do not count.
        temperature: divides the cosines.
    """
    scores = jnp.einsum("BD,CD->BC", unit(queries), unit(candidates)) / temperature
    own = jnp.eye(len(queries), len(candidates), dtype=bool)
    scores = jnp.where(counts | own, scores, _NEVER)
    at_own = jnp.where(own, scores, 0.0).sum(-1)
    return ((jax.nn.logsumexp(scores, axis=-1) - at_own) * weights).sum()


def in_batch(
    vectors: Float[Array, "B S D"],
    texts: Int[Array, "B K"],
    weights: Float[Array, " B"],
    *,
    temperature: float,
    symmetric: bool,
) -> Float[Array, ""]:
    """`info_nce` of each row's first vector, whose own candidate is the row's second one.

    The other candidates are the second vectors and hard negatives (the vectors after the second) of all rows. False
    negatives do not count: candidates that are the same text as the row's first or second one, and second texts of rows
    that share a text or a class with the row.

    Args:
        vectors: of the texts of each row: first, second, then any hard negatives.
        texts: an integer for each text of a row, the same for the same text; then one for the row's class.
        weights: 0 for rows that fill up the batch.
        temperature: divides the cosines.
        symmetric: adds the loss of second vectors that are to find their first one (without hard negatives), and halves
            the sum.
    """
    sides = vectors.shape[1]
    first, second, group = texts[:, 0], texts[:, 1], texts[:, sides]
    same = lambda x, y: x[:, None] == y[None, :]
    together = same(first, first) | same(second, second) | same(group, group)
    seconds = ~(together | same(first, second) | same(second, first))
    is_real = weights > 0
    counts, candidates = [seconds & is_real], [vectors[:, 1]]
    for side in range(2, sides):
        negative = texts[:, side]
        counts.append(~(same(first, negative) | same(second, negative)) & is_real)
        candidates.append(vectors[:, side])
    loss = info_nce(
        vectors[:, 0],
        jnp.concatenate(candidates),
        jnp.concatenate(counts, axis=1),
        weights,
        temperature=temperature,
    )
    if not symmetric:
        return loss
    backward = info_nce(
        vectors[:, 1], vectors[:, 0], counts[0].T & is_real, weights, temperature=temperature
    )
    return (loss + backward) / 2


def cosent(
    cosines: Float[Array, " B"],
    targets: Float[Array, " B"],
    weights: Float[Array, " B"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """log(1 + sum over rows i, j with target i above target j of exp((cosine j - cosine i) / temperature)), for the
    whole batch.

    CoSENT: Su 2022, https://kexue.fm/archives/8847, equation 6, where 1 / temperature is 20.
    """
    differences = (cosines[None, :] - cosines[:, None]) / temperature
    counts = (targets[:, None] > targets[None, :]) & (weights[:, None] * weights[None, :] > 0)
    terms = jnp.where(counts, differences, _NEVER).reshape(-1)
    return jax.nn.logsumexp(jnp.concatenate([jnp.zeros(1, terms.dtype), terms]))


def cosine_squared_error(
    cosines: Float[Array, " B"], targets: Float[Array, " B"], weights: Float[Array, " B"]
) -> Float[Array, ""]:
    """Weighted sum of (cosine - target)^2 (Reimers and Gurevych 2019, 1908.10084, section 3, regression objective)."""
    return (jnp.square(cosines - targets) * weights).sum()


def cosine(a: Float[Array, "B D"], b: Float[Array, "B D"]) -> Float[Array, " B"]:
    """The cosine of each pair of vectors."""
    return (unit(a) * unit(b)).sum(-1)


def objective(
    name: Literal["contrastive", "cosent", "cosine"],
    vectors: Float[Array, "B S D"],
    batch: Mapping[str, Array],
    *,
    sizes: Sequence[int],
    temperature: float,
    symmetric: bool,
) -> Float[Array, ""]:
    """The weighted sum of a loss over the rows of a batch, for whole vectors and for each of the `truncations`.

    Args:
        name: of the loss: `in_batch`, `cosent` or `cosine_squared_error`.
        vectors: of the texts of each row.
        batch: `valid`, the weights of the rows, and their `texts` or `scores`.
        sizes: of the truncations.
        temperature: of the first two.
        symmetric: of `in_batch`.
    """
    weights = batch["valid"]

    def loss(part: Float[Array, "B S d"]) -> Float[Array, ""]:
        if name == "contrastive":
            texts = batch["texts"]
            return in_batch(part, texts, weights, temperature=temperature, symmetric=symmetric)
        cosines = cosine(part[:, 0], part[:, 1])
        if name == "cosent":
            # one number for a batch
            each = cosent(cosines, batch["scores"], weights, temperature=temperature)
            return each * weights.sum()
        return cosine_squared_error(cosines, batch["scores"], weights)

    return jnp.stack([loss(part) for part in truncations(vectors, sizes)]).sum()


def truncations(
    vectors: Float[Array, "... D"], sizes: Sequence[int]
) -> list[Float[Array, "... d"]]:
    """The whole vectors, and their first numbers for each size (Matryoshka representations, 2205.13147, section 3)."""
    return [vectors, *(vectors[..., :size] for size in sizes)]
