"""Attributions from gradients of a score with respect to the embeddings of the tokens.

A score is a function of embeddings, a dict of arrays [B, T, D] (an encoder-decoder has one for the source and one for
the target), that returns one number a row [B]; rows must not depend on each other. Attributions are dicts of [B, T].
Embeddings must be float32: the difference of two bfloat16 embeddings has few digits left.

Letters: B rows, T positions, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Inputs = dict[str, Array]
Score = Callable[[Inputs], Float[Array, " B"]]

# along the path of integrated gradients
STEPS = 32


class Integrated(NamedTuple):
    """Integrated gradients with the check that they are complete."""

    attributions: Inputs
    # |sum of the attributions - (score - score of the baseline)| [B]
    error: Float[Array, " B"]


def gradient(score: Score, x: Inputs) -> Inputs:
    """The gradient of each row's score."""
    return jax.grad(lambda x: score(x).sum())(x)


def saliency(score: Score, x: Inputs) -> Inputs:
    """||ds/dx_t||: how fast the score changes with each embedding (Simonyan et al. 2014, 1312.6034, section 3; for
    embeddings Li et al. 2016, 1506.01066). Never negative: it does not say in which direction."""
    return jax.tree.map(lambda g: jnp.linalg.norm(g, axis=-1), gradient(score, x))


def input_x_gradient(score: Score, x: Inputs) -> Inputs:
    """x_t . ds/dx_t, what the token adds if the score were linear (Shrikumar et al. 2016, 1605.01713)."""
    return jax.tree.map(lambda x, g: (x * g).sum(-1), x, gradient(score, x))


def integrated_gradients(
    score: Score,
    x: Inputs,
    baseline: Inputs,
    steps: int = STEPS,
    *,
    together: int | None = None,
) -> Integrated:
    """(x_t - b_t) . integral of ds/dx_t along the line from b to x (Sundararajan et al. 2017, 1703.01365, equation 1).

    Gauss-Legendre quadrature gives the integral. Attributions should add up to the difference of the scores of x
    and b; the error says how far they do.

    Args:
        score: of embeddings.
        x: embeddings.
        baseline: embeddings b of a text that says nothing, of the same shapes.
        steps: points on the line.
        together: points at a time; None: one after another.

    Raises:
        ValueError: `steps` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients with {steps} steps: at least 1 is needed")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    points = jnp.asarray((nodes + 1) / 2, jnp.float32), jnp.asarray(weights / 2, jnp.float32)

    def at(point: tuple[Array, Array]) -> Inputs:
        alpha, weight = point
        between = jax.tree.map(lambda x, b: b + alpha * (x - b), x, baseline)
        return jax.tree.map(lambda g: weight * g, gradient(score, between))

    size = together and min(steps, together)
    means = jax.tree.map(lambda g: g.sum(0), jax.lax.map(at, points, batch_size=size))
    found = jax.tree.map(lambda x, b, g: ((x - b) * g).sum(-1), x, baseline, means)
    total = sum(a.sum(-1) for a in jax.tree.leaves(found))
    return Integrated(found, jnp.abs(total - (score(x) - score(baseline))))
