"""The device mesh, and how arrays are sharded over it.

The mesh has the axes `data`, `fsdp`, `expert`, `context` and `tensor`; its shape is the strategy. A parameter's name
gives its logical dims (`jaxlm.params`), a logical dim gives its mesh axes (`RULES`); an unknown name raises. Axes are
always `Auto`: XLA chooses the sharding of what has no logical dims.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.config import MeshConfig
from jaxlm.params import param_dims, path_name

# from the slowest links between devices to the fastest
AXES = ("data", "fsdp", "expert", "context", "tensor")
# axes with little enough traffic for the network between the slices of several pods
SLOW_AXES = ("data", "fsdp")

# logical dim -> mesh axes (None: replicated)
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp", "expert"),
    "replicas": "data",  # the batch where the axes of "embed" split something else
    "seq": "context",
    "residual_seq": ("context", "tensor"),  # between layers, with compute.sequence_parallel
    "embed": ("fsdp", "expert", "context"),
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
    "experts": "expert",
    "expert_embed": ("fsdp", "context"),  # `embed` of experts, which `expert` splits by number
    "features": None,  # small vectors and tables
}


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """The mesh of all devices (or of those given) in the shape of the config.

    In a TPU pod, an axis may lie along a part of a side of the torus. Several slices, with a slow network between them,
    split `data`, and `fsdp` if `data` has too few parts.

    Raises:
        ValueError: the product of the axis sizes is not the number of devices, or the slices do not fit.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, name) for name in AXES]
    known = int(np.prod([s for s in sizes if s != -1]))
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        shape = " x ".join(f"mesh.{name}={size}" for name, size in zip(AXES, sizes))
        raise ValueError(
            f"{shape} does not fit {len(devices)} device(s): the product must be {len(devices)}, "
            "with at most one axis -1 for the remaining devices"
        )
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    return Mesh(_arranged(sizes, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arranged(sizes: list[int], devices: list) -> np.ndarray:
    """The devices in the shape of the mesh, so that collectives run between neighbours."""
    slices = len({getattr(device, "slice_index", None) for device in devices})
    outer, left = [1] * len(sizes), slices
    for i, name in enumerate(AXES):
        if name in SLOW_AXES:
            outer[i] = math.gcd(sizes[i], left)
            left //= outer[i]
    if left > 1:
        axes = " x ".join(f"mesh.{name}={sizes[AXES.index(name)]}" for name in SLOW_AXES)
        raise ValueError(
            f"the {slices} slices do not divide {axes}: no other axis can lie across the network between slices"
        )
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    inner = [size // n for size, n in zip(sizes, outer)]
    return mesh_utils.create_hybrid_device_mesh(
        inner, outer, devices, allow_split_physical_axes=True
    )


def spec(*dims: str | None) -> P:
    """The PartitionSpec of an array with these logical dims; raises KeyError for a dim without a rule."""
    return P(*(None if dim is None else RULES[dim] for dim in dims))


def constrain(x: jax.Array, *dims: str | None) -> jax.Array:
    """Constrains the sharding of an activation; does nothing without a mesh or under `unconstrained`.

    Fewer positions or key heads than the mesh has parts for are not split.
    """
    sizes = zip(dims, x.shape, strict=True)
    partition = spec(*(None if is_whole(d, n, shards(d)) else d for d, n in sizes))
    if current_mesh() is None:
        return x
    return jax.lax.with_sharding_constraint(x, partition)


def is_whole(dim: str | None, size: int, parts: int) -> bool:
    """Whether a logical dim of this size is on every device, although a mesh has `parts` parts for it.

    So are fewer key heads than there are parts: each device has the one that its query heads use. And fewer positions:
    those of a step of generation, and fewer rows: those of a sample.
    """
    few = size < parts
    return few and (
        dim in ("batch", "seq", "residual_seq") or (dim == "kv_heads" and parts % size == 0)
    )


@contextlib.contextmanager
def unconstrained() -> Iterator[None]:
    """Within it a function is traced as on one device: for what `jax.vmap` maps over the sharded batch, one example
    at a time, where the dim "batch" has size 1."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


_is_off = contextvars.ContextVar("_is_off", default=False)


def axes(dim: str) -> tuple[str, ...]:
    """The mesh axes of a logical dim."""
    rule = RULES[dim]
    return () if rule is None else (rule,) if isinstance(rule, str) else rule


def current_mesh() -> AbstractMesh | None:
    """The mesh that is set (`jax.set_mesh`); None without one or under `unconstrained`."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if _is_off.get() or mesh.empty else mesh


def shards(dim: str | None, mesh: Mesh | AbstractMesh | None = None) -> int:
    """Number of shards of a logical dim on a mesh, by default the current one; 1 if there is none."""
    mesh = current_mesh() if mesh is None else mesh
    return 1 if mesh is None or dim is None else math.prod(mesh.shape[axis] for axis in axes(dim))


def batch_shards(mesh: Mesh | None = None) -> int:
    """Number of shards of the rows of a batch, see `shards`."""
    return shards("batch", mesh)


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """The shardings of a tree of (abstract) parameters.

    Raises:
        ValueError: the size of a dim is not a multiple of the size of its mesh axis.
    """

    def one(path, x):
        placed: list[str | None] = []
        for dim, size in zip(param_dims(path, x.ndim), x.shape):
            parts = shards(dim, mesh)
            whole = is_whole(dim, size, parts)
            placed.append(None if whole else dim)
            if size % parts and not whole:
                own = " x ".join(
                    f"mesh.{a}={mesh.shape[a]}" for a in axes(dim) if mesh.shape[a] > 1
                )
                hint = ": leave model.vocab_size unset, or round it up" if dim == "vocab" else ""
                raise ValueError(f"{own} does not divide {dim}={size} of {path_name(path)}{hint}")
        return NamedSharding(mesh, spec(*placed))

    return jax.tree.map_with_path(one, params)


def tree_shardings(tree: Any, params: Any, mesh: Mesh) -> Any:
    """The shardings of a tree that contains copies of the parameters, such as an optimizer state.

    A leaf is sharded like a parameter if its path ends in the parameter's path and its shape is the same; every other
    leaf (counters, factored moments) is replicated.
    """
    shardings = jax.tree_util.tree_flatten_with_path(param_shardings(params, mesh))[0]
    shapes = jax.tree.leaves(params)
    known = {_dict_keys(path): (x.shape, s) for (path, s), x in zip(shardings, shapes)}

    def one(path, x):
        keys = _dict_keys(path)
        for start in range(len(keys)):
            shape, sharding = known.get(keys[start:], (None, None))
            if sharding is not None and shape == x.shape:
                return sharding
        return NamedSharding(mesh, P())

    return jax.tree.map_with_path(one, tree)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Abstract arrays with these shapes, dtypes and shardings; one sharding stands for a tree of the same."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree of arrays or abstract arrays."""
    return jax.tree.map(lambda x: x.sharding, tree)


def _dict_keys(path: tuple) -> tuple[str, ...]:
    return tuple(k.key for k in path if isinstance(k, jax.tree_util.DictKey))
