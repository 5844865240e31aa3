"""Checkpoints of runs with low-rank adapters, as the models that they are."""

from __future__ import annotations

import os
from typing import Any

import jax

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.models import lora


def load_merged(folder: str | os.PathLike, target: Any, *, step: int | None = None) -> Any:
    """The parameters of a checkpoint, as `store.load_params` reads them, with its adapters added to their matrices.

    Args:
        folder: of the run.
        target: abstract parameters without adapters, all of the model's or a part.
        step: of the checkpoint; default: the newest.
    """
    return merge(
        store.load_params(folder, with_stored(folder, target, step=step), step=step), target
    )


def with_stored(folder: str | os.PathLike, target: Any, *, step: int | None = None) -> Any:
    """The abstract parameters with the adapters that a checkpoint has for their matrices."""
    stored = store.describe(folder, step=step)["params"]
    found: dict[str, dict[str, Any]] = {}
    for path, x in lora.flat(target).items():
        parts = {part: stored.get(f"{path}{lora.ADAPTER}{part}") for part in lora.PARTS}
        if None in parts.values():
            continue
        # small, so that every device may have them whole
        place = x.sharding
        if isinstance(place, jax.sharding.NamedSharding):
            place = jax.sharding.NamedSharding(place.mesh, jax.sharding.PartitionSpec())
        found[path] = {
            part: jax.ShapeDtypeStruct(about["shape"], about["dtype"], sharding=place)
            for part, about in parts.items()
        }
    return lora.put(target, found)


def merge(params: Any, target: Any) -> Any:
    """The parameters with their adapters added to the matrices, sharded as `target`."""
    if not lora.has_adapters(params):
        return params
    return jax.jit(lora.merge, out_shardings=sharding.shardings_of(target))(params)
