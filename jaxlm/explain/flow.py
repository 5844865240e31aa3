"""From the attention weights of all layers to what each token gets from each input token.

Weights of one layer say which positions it mixes; after several layers a position no longer stands for its own token.
Every method here makes a matrix of each layer and multiplies them (`flow`). None proves what the model uses: compare
them with removal (`faithfulness`).

Letters: L layers, B rows, T positions, S positions of the source, N heads, K key/value heads, H head width, D model
width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Maps(NamedTuple):
    """A matrix for each layer: how much of each position it puts into each position; of an encoder-decoder three."""

    # [L, B, T, T] from the same text
    own: Float[Array, "L B T T"]
    # [L, B, T, S] from the source
    cross: Float[Array, "L B T S"] | None = None
    # [L, B, S, S] within the source
    source: Float[Array, "L B S S"] | None = None


class Flow(NamedTuple):
    """How much each position has of each input token after the last layer."""

    own: Float[Array, "B T T"]
    source: Float[Array, "B T S"] | None


def flow(maps: Maps) -> Flow:
    """The product of the layers' matrices: M <- own M + cross M_source, from M = (identity, 0)."""
    length = maps.own.shape[-1]
    own = jnp.broadcast_to(jnp.eye(length), maps.own.shape[1:])
    if maps.cross is None:
        return Flow(jax.lax.scan(lambda m, a: (a @ m, None), own, maps.own)[0], None)
    assert maps.source is not None
    memory = flow(Maps(maps.source)).own

    def step(carry, layer):
        (own, source), (a, c) = carry, layer
        return (a @ own, a @ source + c @ memory), None

    start = own, jnp.zeros(maps.cross.shape[1:])
    return Flow(*jax.lax.scan(step, start, (maps.own, maps.cross))[0])


def rollout(attention: Maps) -> Maps:
    """(A + I) / 2 of each layer, where A is the mean over the heads (Abnar and Zuidema 2020, 2005.00928, section 3).

    In a layer with cross-attention self-attention comes first: the half of what it gives, and half of the source.
    """

    def mixed(a: Array) -> Array:
        return (a + jnp.eye(a.shape[-1])) / 2

    source = None if attention.source is None else mixed(attention.source)
    if attention.cross is None:
        return Maps(mixed(attention.own), None, source)
    return Maps(mixed(attention.own) / 2, attention.cross / 2, source)


def relevance(weighted: Maps) -> Maps:
    """I + mean over the heads of max(0, A * dA): attention times its gradient (Chefer et al. 2021, 2103.15679,
    equations 5 and 6). Cross-attention adds what the source has gathered by the same rule, without their normalisation.

    Args:
        weighted: max(0, A * dA), where dA is the gradient of the score with respect to the weights A.
    """
    identity = lambda a: a + jnp.eye(a.shape[-1])
    source = None if weighted.source is None else identity(weighted.source)
    return Maps(identity(weighted.own), weighted.cross, source)


def norms(
    attention: Float[Array, "B N T S"],
    values: Float[Array, "B S K H"],
    out: Float[Array, "N H D"],
) -> Float[Array, "B T S"]:
    """Length of the vector that each key adds to each query: ||sum_n a_n(t, s) v_n(s) W_n|| (Kobayashi et al. 2020,
    2004.10102): a large weight on a short vector moves nothing.

    Args:
        attention: weights.
        values: of the keys.
        out: output projection of each head.
    """
    queries_a_head = attention.shape[1] // values.shape[2]
    values = jnp.repeat(values, queries_a_head, axis=2)
    vectors = jnp.einsum("BSNH,NHD->BNSD", values, out)
    # ||sum_n a_n x_n||^2 = sum over pairs of heads of a_n a_m x_n x_m: [B, T, S, D] is never made
    products = jnp.einsum("BNSD,BMSD->BSNM", vectors, vectors)
    squares = jnp.einsum("BNTS,BMTS,BSNM->BTS", attention, attention, products)
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def normalized(maps: Maps) -> Maps:
    """Each row divided by its sum, together with that of the source; rows of zeros stay."""
    total = maps.own.sum(-1, keepdims=True)
    total = total if maps.cross is None else total + maps.cross.sum(-1, keepdims=True)
    total = jnp.maximum(total, 1e-30)
    source = None if maps.source is None else normalized(Maps(maps.source)).own
    return Maps(maps.own / total, None if maps.cross is None else maps.cross / total, source)
