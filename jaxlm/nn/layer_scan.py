"""A loop over layers whose arrays are stacked in a leading dim L, for layers of several kinds.

Only what repeats in the sequence of kinds is scanned, with the kinds known while tracing: Gemma 3's 26 layers are four
times five local layers and a global one, and two local layers after the scan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Kind = TypeVar("Kind", bound=Hashable)


class Repetition(NamedTuple):
    """Layers `start` to `start + period * repeats`: the same `period` kinds, `repeats` times."""

    start: int
    period: int
    repeats: int


@functools.cache
def find_repetition(kinds: tuple[Hashable, ...]) -> Repetition:
    """The repetition that leaves the fewest layers to compile: one period and the layers before and after it."""
    count = len(kinds)
    best, fewest = Repetition(0, count, 1), count
    for period in range(1, count // 2 + 1):
        for start in range(count - 2 * period + 1):
            repeats = 1
            while _slice(kinds, start, period, repeats) == _slice(kinds, start, period, 0):
                repeats += 1
            compiled = count - period * (repeats - 1)
            if compiled < fewest:
                best, fewest = Repetition(start, period, repeats), compiled
    return best


def _slice(kinds: tuple, start: int, period: int, repeat: int) -> tuple:
    return kinds[start + repeat * period : start + (repeat + 1) * period]


def scan_layers(
    layer: Callable[[Kind, Any, Any], tuple[Any, Any]],
    carry: Any,
    stacked: Any,
    kinds: tuple[Kind, ...],
    *,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Equals a Python loop over the layers, with one period of their kinds compiled.

    Args:
        layer: `layer(kind, carry, arrays)` returns the next carry and the layer's outputs.
        carry: what goes from layer to layer.
        stacked: arrays [L, ...] in any tree.
        kinds: of each of the L layers.
        unroll: layers in a step of the scan, rounded down to whole periods and at least one; from L on there is no loop.

    Returns:
        The last carry, and the outputs stacked to [L, ...].
    """

    def run(carry, stacked, kinds: Sequence[Kind]):
        outputs = []
        for kind, arrays in zip(kinds, _unstack(stacked, len(kinds))):
            carry, output = layer(kind, carry, arrays)
            outputs.append(output)
        return carry, jax.tree.map(lambda *xs: jnp.stack(xs), *outputs)

    start, period, repeats = find_repetition(kinds)
    end = start + period * repeats

    def scan(carry, stacked, kinds: Sequence[Kind]):
        periods = jax.tree.map(lambda x: x.reshape(repeats, period, *x.shape[1:]), stacked)
        body = functools.partial(run, kinds=kinds[:period])
        steps = repeats if unroll >= len(kinds_all) else max(1, unroll // period)
        carry, outputs = jax.lax.scan(body, carry, periods, unroll=steps)
        return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

    kinds_all = kinds
    pieces = []
    parts = [(run, 0, start), (scan, start, end), (run, end, len(kinds))]
    parts = [part for part in parts if part[1] < part[2]]
    sizes = [b - a for _, a, b in parts]
    for (loop, a, b), piece in zip(parts, _split(stacked, sizes)):
        carry, outputs = loop(carry, piece, kinds[a:b])
        pieces.append(outputs)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *pieces)


def _split(stacked: Any, sizes: Sequence[int]) -> list[Any]:
    """[L, ...] to pieces of the sizes along L; by `split`, whose gradient is one concatenation."""
    leaves, tree = jax.tree.flatten(stacked)
    pieces = [jax.lax.split(x, sizes) for x in leaves]
    return [tree.unflatten([x[i] for x in pieces]) for i in range(len(sizes))]


def _unstack(stacked: Any, count: int) -> list[Any]:
    """[L, ...] to L trees without that dim."""
    return [jax.tree.map(lambda x: x[0], piece) for piece in _split(stacked, [1] * count)]
