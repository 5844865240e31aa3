"""A loop over layers of several kinds whose arrays are stacked in a leading dim L.

The layer kinds are static: what repeats in their sequence is scanned and compiled once, the rest is compiled layer by
layer. Gemma 3's 26 layers are four times five local layers and a global one, and two local layers after the scan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# layer(kind, carry, arrays) returns the next carry and the layer's outputs
Layer = Callable[[Any, Any, Any], tuple[Any, Any]]


class Repetition(NamedTuple):
    """From layer `start` on, the same `period` kinds follow each other `repeats` times."""

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
            first = kinds[start : start + period]
            repeats = 1
            while kinds[start + repeats * period :][:period] == first:
                repeats += 1
            compiled = count - period * (repeats - 1)
            if compiled < fewest:
                best, fewest = Repetition(start, period, repeats), compiled
    return best


def scan_layers(
    layer: Layer, carry: Any, stacked: Any, kinds: tuple[Hashable, ...], *, unroll: int = 1
) -> tuple[Any, Any]:
    """Runs all layers, one period of their kinds being compiled; equals a Python loop over them.

    Args:
        layer: one layer; its kind is static.
        carry: what goes from layer to layer.
        stacked: the layers' arrays [L, ...], in any tree.
        kinds: of the L layers.
        unroll: layers in a step of the scan, rounded down to whole periods, at least one; from L on there is no loop.

    Returns:
        The last carry, and the outputs stacked to [L, ...].
    """
    start, period, repeats = find_repetition(kinds)
    end = start + period * repeats
    steps = repeats if unroll >= len(kinds) else max(1, unroll // period)
    pieces: list[tuple[int, int, Callable]] = [
        (0, start, _run),
        (start, end, functools.partial(_scan, period=period, unroll=steps)),
        (end, len(kinds), _run),
    ]
    pieces = [piece for piece in pieces if piece[0] < piece[1]]
    outputs = []
    arrays = _split(stacked, [last - first for first, last, _ in pieces])
    for (first, last, run), piece in zip(pieces, arrays):
        carry, output = run(layer, carry, piece, kinds[first:last])
        outputs.append(output)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *outputs)


def _run(layer: Layer, carry: Any, stacked: Any, kinds: tuple[Hashable, ...]) -> tuple[Any, Any]:
    """The layers one after the other."""
    outputs = []
    for kind, piece in zip(kinds, _split(stacked, [1] * len(kinds))):
        carry, output = layer(kind, carry, jax.tree.map(lambda x: x[0], piece))
        outputs.append(output)
    return carry, jax.tree.map(lambda *xs: jnp.stack(xs), *outputs)


def _scan(
    layer: Layer,
    carry: Any,
    stacked: Any,
    kinds: tuple[Hashable, ...],
    *,
    period: int,
    unroll: int,
) -> tuple[Any, Any]:
    """The layers in a scan over their periods."""
    kinds = kinds[:period]
    if period == 1:
        return jax.lax.scan(functools.partial(layer, kinds[0]), carry, stacked, unroll=unroll)
    periods = jax.tree.map(lambda x: x.reshape(-1, period, *x.shape[1:]), stacked)
    carry, outputs = jax.lax.scan(
        lambda carry, arrays: _run(layer, carry, arrays, kinds), carry, periods, unroll=unroll
    )
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)


def _split(stacked: Any, sizes: Sequence[int]) -> list[Any]:
    """Pieces of these sizes along L; `split` and not slices, because its gradient is a single concatenation."""
    leaves, structure = jax.tree.flatten(stacked)
    pieces = [jax.lax.split(x, sizes) for x in leaves]
    return [jax.tree.unflatten(structure, [x[i] for x in pieces]) for i in range(len(sizes))]
