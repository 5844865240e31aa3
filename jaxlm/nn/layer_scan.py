"""A loop over layers of several kinds whose arrays are stacked in a leading dim L.

The layer kinds are static. A repeated period of kinds is scanned and compiled once, and so are repetitions within the
period. Gemma 3's 26 layers are four times (five local, one global) and two local: three layers are compiled.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.params import DENSE, dense_block

# layer(kind, carry, arrays) -> next carry, outputs of the layer
Layer = Callable[[Any, Any, Any], tuple[Any, Any]]


class Repetition(NamedTuple):
    """A period of `period` kinds that occurs `repeats` times in sequence, starting at layer `start`."""

    start: int
    period: int
    repeats: int


@functools.cache
def find_repetition(kinds: tuple[Hashable, ...]) -> Repetition:
    """The repetition that minimises the layers to compile: one period, and the layers before and after it."""
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
    """Runs all layers and compiles repeated kinds once; equivalent to a Python loop over the layers.

    Args:
        layer: applies one layer; the kind is static.
        carry: value passed from layer to layer.
        stacked: a tree with the arrays of all layers [L, ...].
        kinds: kind of each of the L layers.
        unroll: layers per step of a scan, rounded down to whole periods, at least one. With at least the length of a
            period, there is no loop within the period; with at least L, there is no loop at all.

    Returns:
        The last carry, and the outputs stacked to [L, ...].
    """
    start, period, repeats = find_repetition(kinds)
    if repeats == 1:
        return _run(layer, carry, stacked, kinds)
    run = functools.partial(scan_layers, layer, unroll=unroll)

    def scan(carry: Any, stacked: Any, kinds: tuple[Hashable, ...]) -> tuple[Any, Any]:
        steps = repeats if unroll >= count else max(1, unroll // period)
        if period == 1:
            return jax.lax.scan(functools.partial(layer, kinds[0]), carry, stacked, unroll=steps)
        body = functools.partial(run, kinds=kinds[:period])
        periods = jax.tree.map(lambda x: x.reshape(repeats, period, *x.shape[1:]), stacked)
        carry, outputs = jax.lax.scan(body, carry, periods, unroll=steps)
        return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

    count, end = len(kinds), start + period * repeats
    pieces: list[tuple[int, int, Callable]] = [
        (0, start, run),
        (start, end, scan),
        (end, count, run),
    ]
    pieces = [piece for piece in pieces if piece[0] < piece[1]]
    outputs = []
    arrays = split_layers(stacked, [last - first for first, last, _ in pieces])
    for (first, last, loop), piece in zip(pieces, arrays):
        carry, output = loop(carry, piece, kinds[first:last])
        outputs.append(output)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *outputs)


def scan_between(
    layer: Layer,
    carry: Any,
    stacked: Any,
    alone: Mapping[int, Any],
    every: Any,
    kinds: tuple[Hashable, ...],
    *,
    unroll: int = 1,
) -> Any:
    """As `scan_layers`, with some layers whose arrays are not stacked with the others', as they have other shapes.

    Args:
        layer: given the arrays of its own and its part of `every`.
        carry: value passed from layer to layer.
        stacked: a tree with the arrays of the other layers, in their order.
        alone: for some of the L layers a tree of arrays.
        every: a tree with further arrays [L, ...] of all layers.
        kinds: kind of each of the L layers.
        unroll: as in `scan_layers`.

    Returns:
        The last carry.
    """
    start, count = 0, len(kinds)
    stops = [*sorted(alone), count]
    sizes = [stop - first for first, stop in zip([0, *(i + 1 for i in stops)], stops)]
    for stop, size, piece in zip(stops, sizes, split_layers(stacked, sizes)):
        if size:
            arrays = (piece, jax.tree.map(operator.itemgetter(slice(start, stop)), every))
            carry, _ = scan_layers(layer, carry, arrays, kinds[start:stop], unroll=unroll)
        if stop < count:
            arrays = (alone[stop], jax.tree.map(operator.itemgetter(stop), every))
            carry, _ = layer(kinds[stop], carry, arrays)
        start = stop + 1
    return carry


def _run(layer: Layer, carry: Any, stacked: Any, kinds: tuple[Hashable, ...]) -> tuple[Any, Any]:
    """Runs the layers without a loop."""
    outputs = []
    for kind, arrays in zip(kinds, unstack(stacked)):
        carry, output = layer(kind, carry, arrays)
        outputs.append(output)
    return carry, jax.tree.map(lambda *xs: jnp.stack(xs), *outputs)


def split_layers(stacked: Any, sizes: Sequence[int]) -> list[Any]:
    """Splits along L into these sizes; not by slices, because the gradient of `split` is a single concatenation."""
    leaves, structure = jax.tree.flatten(stacked)
    pieces = [jax.lax.split(x, sizes) for x in leaves]
    return [jax.tree.unflatten(structure, [x[i] for x in pieces]) for i in range(len(sizes))]


def unstack(stacked: Any) -> tuple[Any, ...]:
    """The tree of each layer, of a tree with the arrays of all layers [L, ...]."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    pieces = split_layers(stacked, [1] * count)
    return tuple(jax.tree.map(lambda x: x[0], piece) for piece in pieces)


def layers_in_order(stack: Mapping[str, Any]) -> tuple[Any, ...]:
    """The parameters of each layer of a stack: of its blocks, stacked or a tuple, and of those beside them."""
    blocks = stack["blocks"]
    rest = list(blocks if isinstance(blocks, tuple) else unstack(blocks))
    for i in sorted(int(name.removeprefix(DENSE)) for name in stack if name.startswith(DENSE)):
        rest.insert(i, stack[dense_block(i)])
    return tuple(rest)
