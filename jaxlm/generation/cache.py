"""The caches of the engine: rows of slots whose lengths grow by whole blocks, copied block by block.

A cache is never copied whole. Where a row moves, because a prompt was processed or because the number of slots or their
length changed, the blocks that it uses are copied, each by one small program, so that few programs serve all shapes.

Letters: B rows, K key/value heads, S entries of a row, H head width, L layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.models import decoder
from jaxlm.nn.attention import Cache
from jaxlm.sharding import constrain

Caches = tuple[Cache, ...]


def lengths(block: int, maximum: int) -> tuple[int, ...]:
    """The lengths that a cache can have: powers of two times `block`, up to the first that holds `maximum` tokens."""
    sizes = [block]
    while sizes[-1] < maximum:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def smallest(sizes: Sequence[int], needed: int) -> int:
    """The first of the increasing sizes that is at least `needed`."""
    return next(size for size in sizes if size >= needed)


def local_length(config: DecoderConfig, block: int) -> int | None:
    """Entries of layers with a window: whole blocks, and one more, because the last block of a prompt is padded."""
    if config.window is None:
        return None
    return (-(-config.window // block) + 1) * block


@functools.partial(
    jax.jit, static_argnames=("config", "rows", "length", "memory", "block", "compute")
)
def empty(
    config: DecoderConfig,
    *,
    rows: int,
    length: int,
    memory: int,
    block: int,
    compute: ComputeConfig,
) -> Caches:
    """Caches of `rows` slots with room for `length` tokens, and `memory` tokens of the source of an encoder-decoder."""
    caches = decoder.empty_cache(
        config, rows, length, compute, local_length=local_length(config, block)
    )
    if memory:
        memories = decoder.empty_cache(config, rows, memory, compute)
        caches = tuple(own._replace(memory=source) for own, source in zip(caches, memories))
    shard = lambda x: constrain(x, "batch", "kv_heads", None, "head_dim")
    return jax.tree.map(shard, caches)


@functools.partial(jax.jit, static_argnames=("block", "memory"))
def take(caches: Caches, row: jax.Array, index: jax.Array, *, block: int, memory: bool) -> Caches:
    """Block `index` of a row [1, K, block, H] of each layer, of the memories or of the caches themselves."""

    def take_one(x: jax.Array) -> jax.Array:
        if x.shape[2] < block:  # of a short prompt
            x = jnp.pad(x, ((0, 0), (0, 0), (0, block - x.shape[2]), (0, 0)))
        start = (row, 0, index * block % x.shape[2], 0)
        return jax.lax.dynamic_slice(x, start, (1, x.shape[1], block, x.shape[3]))

    return jax.tree.map(take_one, _part(caches, memory))


@functools.partial(jax.jit, static_argnames=("block", "memory"), donate_argnums=0)
def put(
    caches: Caches, pieces: Caches, row: jax.Array, index: jax.Array, *, block: int, memory: bool
) -> Caches:
    """The caches with block `index` of a row replaced."""

    def put_one(x: jax.Array, piece: jax.Array) -> jax.Array:
        start = (row, 0, index * block % x.shape[2], 0)
        return jax.lax.dynamic_update_slice(x, piece, start)

    changed = jax.tree.map(put_one, _part(caches, memory), pieces)
    if memory:
        return tuple(own._replace(memory=source) for own, source in zip(caches, changed))
    return tuple(new._replace(memory=own.memory) for new, own in zip(changed, caches))


def copy_row(
    source: Caches,
    row: int,
    target: Caches,
    slot: int,
    *,
    tokens: int,
    memory_tokens: int,
    block: int,
) -> Caches:
    """Copies a row of `source` to a slot of `target`, whose buffers are reused; returns the new target.

    Args:
        source: caches of a prompt or of other slots.
        row: the row in it.
        target: caches of the slots.
        slot: the row in it.
        tokens: number of tokens of the row in the caches.
        memory_tokens: number of tokens of its source; 0 without an encoder.
        block: size of a block.
    """
    counts = [(False, tokens)] + ([(True, memory_tokens)] if memory_tokens else [])
    for memory, count in counts:
        for index in range(-(-count // block)):
            piece = take(source, row, index, block=block, memory=memory)
            target = put(target, piece, slot, index, block=block, memory=memory)
    return target


def _part(caches: Caches, memory: bool) -> Caches:
    if not memory:
        return tuple(cache._replace(memory=None) for cache in caches)
    return tuple(cache.memory for cache in caches if cache.memory is not None)
