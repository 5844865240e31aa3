"""The best span of a row of tokens. Letters: B rows, T positions."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# logit of a position that is not allowed; finite, so that sums of two of them are
EXCLUDED = -1e30


class Span(NamedTuple):
    """The best span of each row: the sum of its two logits, its first and its last position."""

    score: Float[Array, " B"]
    first: Int[Array, " B"]
    last: Int[Array, " B"]


def best_span(
    start: Float[Array, "B T"], end: Float[Array, "B T"], allowed: Bool[Array, "B T"], longest: int
) -> Span:
    """The span of at most `longest` positions with the largest start[first] + end[last], both of them allowed.

    Of equal ones the first and shortest; a score below EXCLUDED / 2 means that a row has none.
    """
    length = start.shape[1]
    longest = min(longest, length)
    start, end = (jnp.where(allowed, x.astype(jnp.float32), EXCLUDED) for x in (start, end))
    padded = jnp.pad(end, ((0, 0), (0, longest - 1)), constant_values=EXCLUDED)
    ends = jnp.stack([padded[:, k : k + length] for k in range(longest)], -1)
    scores = (start[..., None] + ends).reshape(len(start), -1)
    best = scores.argmax(-1)
    score = jnp.take_along_axis(scores, best[:, None], 1)[:, 0]
    return Span(score, best // longest, best // longest + best % longest)
