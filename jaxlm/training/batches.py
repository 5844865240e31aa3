"""Converts NumPy rows on each process to global arrays on the mesh."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxlm.config import RunConfig
from jaxlm.sharding import batch_shards, spec


def check_sizes(config: RunConfig, mesh: Mesh) -> None:
    """Raises ValueError if rows, positions or experts cannot be divided evenly among the devices, in any stage."""
    _check_axes(config, mesh)
    shards = batch_shards(mesh)
    if config.privacy.is_on and config.privacy.microbatch % shards:
        raise ValueError(
            f"privacy.microbatch={config.privacy.microbatch} is not a multiple of the {shards} devices of mesh.data x "
            "mesh.fsdp: change one of them"
        )
    early = {f"curriculum.batch_sizes[{i}]": n for i, n in enumerate(config.curriculum.batch_sizes)}
    for name, rows in {**early, "batch_size": config.batch_size}.items():
        if rows // config.accumulate % shards:
            parts = f" / accumulate={config.accumulate}" if config.accumulate > 1 else ""
            raise ValueError(
                f"{name}={rows}{parts} is not a multiple of the {shards} devices of "
                "mesh.data x mesh.fsdp x mesh.expert: change the batch size or the mesh"
            )


def _check_axes(config: RunConfig, mesh: Mesh) -> None:
    """Raises ValueError for what the axes other than `data` and `fsdp` cannot split."""
    if config.compute.sequence_parallel and mesh.shape["tensor"] == 1:
        raise ValueError(
            "compute.sequence_parallel has no effect with mesh.tensor=1: leave it unset"
        )
    context, expert = mesh.shape["context"], mesh.shape["expert"]
    early = {f"curriculum.seq_lens[{i}]": n for i, n in enumerate(config.curriculum.seq_lens)}
    for name, length in {**early, "data.seq_len": config.data.seq_len}.items():
        if length % context:
            raise ValueError(
                f"{name}={length} is not a multiple of mesh.context={context}: change one of them"
            )
    model = config.model  # type: ignore[attr-defined]
    stacks = [getattr(model, name, model) for name in ("encoder", "decoder")]
    if context > 1 and config.privacy.is_on:
        raise ValueError(
            f"mesh.context={context}: private training takes the gradient of one unit at a time, whose positions are "
            "not split; set mesh.context=1"
        )
    if context > 1 and any(getattr(s, "distance_scores", None) == "disentangled" for s in stacks):
        raise ValueError(
            f"mesh.context={context}: disentangled attention (DeBERTa) cannot split the positions of a row; set "
            "mesh.context=1"
        )
    if expert > 1 and all(getattr(s, "num_experts", None) is None for s in stacks):
        raise ValueError(
            f"mesh.expert={expert}, but the model has no experts: set mesh.fsdp or mesh.data instead"
        )


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Which rows of the global batch the devices of this process hold, ascending."""
    indices = NamedSharding(mesh, spec("batch")).addressable_devices_indices_map((batch_size,))
    slices = [index[0].indices(batch_size) for index in indices.values() if index is not None]
    return np.unique(np.concatenate([np.arange(*s) for s in slices]))


def to_devices(
    batch: dict[str, np.ndarray], mesh: Mesh, batch_size: int, rows: np.ndarray
) -> dict[str, jax.Array]:
    """Global arrays [batch_size, ...] of which this process has the rows `rows`."""

    def one(x: np.ndarray) -> jax.Array:
        # whole rows on all devices that split their positions: what is made of them is large, they are not
        placement = NamedSharding(mesh, spec("batch", *[None] * (x.ndim - 1)))
        if not mesh.is_multi_process:
            return jax.device_put(x, placement)
        shape = (batch_size, *x.shape[1:])
        local = lambda index: x[np.searchsorted(rows, np.arange(*index[0].indices(batch_size)))]
        return jax.make_array_from_callback(shape, placement, local)

    return {name: one(x) for name, x in batch.items()}


def abstract_batch(
    batch: dict[str, np.ndarray], mesh: Mesh, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch from a local one."""

    def one(x):
        placement = NamedSharding(mesh, spec("batch", *[None] * (x.ndim - 1)))
        return jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=placement)

    return {name: one(x) for name, x in batch.items()}
