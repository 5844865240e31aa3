"""How well attributions say what a model uses: they are compared with what happens when tokens are removed.

An attribution that looks right may be wrong about the model; these numbers are about the model, not about us. Removing
tokens makes texts that the model was not trained on, so compare methods with each other and with a random order, and do
not read the numbers alone.

Letters: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# fractions of the tokens that are removed (DeYoung et al. 2020, section 4.2)
FRACTIONS = (0.05, 0.1, 0.2, 0.5)


class Aopc(NamedTuple):
    """Areas over the perturbation curve."""

    # high is good: without the tokens ranked first the model loses its answer
    comprehensiveness: Float[Array, " B"]
    # low is good: with the tokens ranked first alone it keeps the answer
    sufficiency: Float[Array, " B"]


def aopc(
    probability: Callable[[Bool[Array, "B T"]], Float[Array, " B"]],
    attributions: Float[Array, "B T"],
    free: Bool[Array, "B T"],
    fractions: tuple[float, ...] = FRACTIONS,
) -> Aopc:
    """Comprehensiveness, the mean over k of p(all) - p(without the first k), and sufficiency, the mean of p(all) -
    p(the first k alone) (DeYoung et al. 2020, 1911.03429, section 4.2).

    Args:
        probability: of the answer, when these tokens are removed.
        attributions: high ones are removed first; of equal ones the first in the text.
        free: tokens that may be removed; control tokens stay.
        fractions: k as fractions of the free tokens, rounded up.
    """
    rank = ranks(attributions, free)
    count = free.sum(-1, keepdims=True)
    whole = probability(jnp.zeros_like(free))

    def at(fraction: Array) -> tuple[Array, Array]:
        # 0.2 of 5 tokens is one, not two
        first = rank < jnp.ceil(count * fraction - 1e-4)
        return whole - probability(first & free), whole - probability(~first & free)

    found = jax.lax.map(at, jnp.asarray(fractions))
    return Aopc(*(x.mean(0) for x in found))


def ranks(attributions: Float[Array, "B T"], free: Bool[Array, "B T"]) -> Array:
    """0 for the token with the highest attribution of its row, and so on; those that are not free come last."""
    order = jnp.argsort(jnp.where(free, -attributions, jnp.inf), axis=-1, stable=True)
    return jnp.argsort(order, axis=-1)


def agreement(
    a: Float[np.ndarray, "B T"], b: Float[np.ndarray, "B T"], free: Bool[np.ndarray, "B T"]
) -> Float[np.ndarray, " B"]:
    """Kendall's tau-b of two attributions over the free tokens of each row: 1 same order, 0 none, -1 reversed.

    With occlusion as one of them: the agreement with leave-one-out (Jain and Wallace 2019, 1902.10186, section 4.1).
    NaN where a row has fewer than two free tokens, or one of the two says nothing.
    """
    return np.array([_tau(x[f], y[f]) for x, y, f in zip(*map(np.asarray, (a, b, free)))], float)


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    """Concordant minus discordant pairs, over the geometric mean of the pairs that are no ties in x and in y."""
    one, other = (np.sign(z[:, None] - z)[np.triu_indices(len(z), 1)] for z in (x, y))
    pairs = float(np.sqrt(np.abs(one).sum() * np.abs(other).sum()))
    return float((one * other).sum()) / pairs if pairs else float("nan")
