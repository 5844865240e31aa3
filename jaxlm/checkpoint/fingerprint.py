"""Checksums of arrays, independent of their sharding; they detect accidental changes, not attacks."""

from __future__ import annotations

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def names(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path: {"blocks/attn/query": leaf}."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def fingerprint(tree: Any) -> dict[str, int]:
    """A checksum of each array by path: a sum of its bits with odd weights, modulo 2**32.

    Any single changed number changes the sum, and integer sums are the same in any order, hence on any mesh. With
    several processes all of them must call it.
    """
    # One program over all arrays, with nothing else in flight: many small programs with collectives at once starve each
    # other of threads on the CPU backend until it aborts.
    jax.block_until_ready(tree)
    groups: dict[Any, dict[str, Any]] = collections.defaultdict(dict)
    for name, x in names(tree).items():
        devices = frozenset(x.sharding.device_set) if isinstance(x, jax.Array) else None
        groups[devices][name] = x
    sums: dict[str, int] = {}
    # The arrays carry their own shardings, which need not be on the caller's mesh.
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        for group in groups.values():
            sums |= zip(group, np.asarray(_checksums(list(group.values()))).tolist())
    return sums


@jax.jit
def _checksums(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([_checksum(x) for x in arrays])


def _checksum(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.zeros(bits.shape, jnp.uint32)
    stride = 1
    for d in reversed(range(bits.ndim)):
        iota = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, d)
        index += iota * jnp.uint32(stride % 2**32)
        stride *= bits.shape[d]
    weight = index * jnp.uint32(2654435761) + jnp.uint32(0x9E3779B9)
    weight = (weight ^ (weight >> 15)) | jnp.uint32(1)
    return jnp.sum(bits * weight, dtype=jnp.uint32)
