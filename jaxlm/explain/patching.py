"""Activation patching: which activations carry the difference between two texts.

Letters: L layers, T positions, B rows.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.explain import reading
from jaxlm.explain.reading import Reading, Rows

# whose activations are patched if nothing else is said
PLACE = "residual_before"


class Patched(NamedTuple):
    """Scores of the answer, in nats; of a target the sum over its tokens."""

    # of the text, and of the corrupted text
    clean: Float[Array, ""]
    corrupt: Float[Array, ""]
    # of the corrupted text with one activation of the clean one
    patched: Float[Array, "L T"]

    @property
    def restored(self) -> Float[Array, "L T"]:
        """(patched - corrupt) / (clean - corrupt): 0 the activation carries nothing, 1 all of the difference."""
        return (self.patched - self.corrupt) / (self.clean - self.corrupt)


@functools.partial(jax.jit, static_argnums=(0, 4))
def patch_grid(
    read: Reading, params: Any, clean: Rows, corrupt: Rows, place: str = PLACE
) -> Patched:
    """The score of the corrupted text when an activation is that of the clean text, for every layer and position: one
    call (Meng et al. 2022, 2202.05262, section 2; Zhang and Nanda 2023, 2309.16042, for what to measure).

    Args:
        read: the model.
        params: its parameters.
        clean: a row, or one for each token of the target of an encoder-decoder, whose scores are added.
        corrupt: rows with as many tokens, and the same answers.
        place: whose activations are patched, one with positions in its second dim (see `nn.tap`); of an encoder-decoder
            in its encoder.

    Raises:
        ValueError: there is no such place, or its second dim has heads and not positions.
    """
    if place.removeprefix("encoder.") == "attention":
        raise ValueError(
            "attention weights belong to two positions, and a patch to one: name another place, such as values or heads"
        )
    stack = "encoder." if read.has_source else read.stack
    name = place if "." in place else stack + place
    logits, seen = reading.outputs(read, params, clean, capture=(name,))
    source = seen[name]

    def run(layer: Array, position: Array) -> Array:
        def patch(x: Array, own: int) -> Array:
            at = (jnp.arange(x.shape[1]) == position) & (layer == own)
            return jnp.where(at.reshape(1, -1, *[1] * (x.ndim - 2)), source[own], x)

        out, _ = reading.outputs(read, params, corrupt, edits={name: patch})
        return reading.score(read, out, corrupt).sum()

    positions = jnp.arange(source.shape[2])
    size = read.together and len(positions)
    row = lambda layer: jax.lax.map(lambda t: run(layer, t), positions, batch_size=size)
    patched = jax.lax.map(row, jnp.arange(len(source)))
    plain, _ = reading.outputs(read, params, corrupt)
    total = lambda logits, rows: reading.score(read, logits, rows).sum()
    return Patched(total(logits, clean), total(plain, corrupt), patched)
