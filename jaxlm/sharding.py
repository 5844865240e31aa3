"""The device mesh, and the two tables that say how every array lies on it.

The mesh has the axes `data`, `fsdp` and `tensor`; its shape is the strategy. A parameter's name gives its logical dims
(`PARAM_DIMS`), a logical dim gives its mesh axis (`RULES`); an unknown name raises. Axes are always `Auto`: XLA
places what neither table mentions.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.config import MeshConfig

AXES = ("data", "fsdp", "tensor")

# logical dim -> mesh axis (None: not split)
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "seq": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
    "experts": None,  # each expert is split as an MLP is, so that their number need not fit the mesh
    "features": None,  # small vectors and tables, whole on every device
}

# parameter name -> logical dims; stacked blocks have "layers" in front
PARAM_DIMS: dict[str, tuple[str, ...]] = {
    "embedding": ("vocab", "embed"),
    "unembedding": ("vocab", "embed"),
    "unembedding_bias": ("vocab",),
    "position_embedding": ("features", "features"),
    "type_embedding": ("features", "features"),
    "relative_bias": ("features", "features"),
    "query": ("embed", "heads", "head_dim"),
    "key": ("embed", "kv_heads", "head_dim"),
    "value": ("embed", "kv_heads", "head_dim"),
    "out": ("heads", "head_dim", "embed"),
    "query_bias": ("heads", "head_dim"),
    "key_bias": ("kv_heads", "head_dim"),
    "value_bias": ("kv_heads", "head_dim"),
    "out_bias": ("features",),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
    "gate_bias": ("mlp",),
    "up_bias": ("mlp",),
    "down_bias": ("features",),
    "router": ("embed", "features"),
    "expert_gate": ("experts", "embed", "mlp"),
    "expert_up": ("experts", "embed", "mlp"),
    "expert_down": ("experts", "mlp", "embed"),
    "project": ("features", "embed"),
    "project_bias": ("features",),
    "scale": ("features",),
    "bias": ("features",),
    "kernel": ("embed", "features"),
}


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """The mesh of all devices (or of those given) in the shape of the config.

    Raises:
        ValueError: the shape does not use the devices up.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([s for s in sizes if s != -1]))
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        shape = " x ".join(f"mesh.{name}={size}" for name, size in zip(AXES, sizes))
        raise ValueError(
            f"{shape} does not fit {len(devices)} device(s): the product must be {len(devices)}, "
            "with at most one axis -1 for the devices left"
        )
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def spec(*dims: str | None) -> P:
    """The partition of an array with these logical dims; raises KeyError for a dim that `RULES` does not know."""
    return P(*(None if dim is None else RULES[dim] for dim in dims))


def constrain(x: jax.Array, *dims: str | None) -> jax.Array:
    """Tells XLA how an activation lies on the mesh; does nothing where no mesh is set."""
    partition = spec(*dims)
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition)


def batch_shards() -> int:
    """Into how many parts the mesh that is set splits the batch; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]


def param_dims(path: tuple, ndim: int) -> tuple[str, ...]:
    """Logical dims of the parameter at a tree path; raises ValueError if its name or rank is not in the table."""
    name = path[-1].key
    dims = PARAM_DIMS.get(name)
    if dims is None:
        raise ValueError(f"{path_name(path)}: no entry for {name!r} in sharding.PARAM_DIMS")
    if ndim == len(dims) + 1:
        return ("layers", *dims)
    if ndim != len(dims):
        raise ValueError(f"{path_name(path)}: has {ndim} dims, sharding.PARAM_DIMS has {dims}")
    return dims


def path_name(path: tuple) -> str:
    """`backbone/blocks/attn/query` for a tree path."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """A tree of shardings for a tree of (abstract) parameters.

    Raises:
        ValueError: a dim that the mesh axis does not divide.
    """

    def one(path, x):
        dims = param_dims(path, x.ndim)
        for dim, size in zip(dims, x.shape):
            axis = RULES[dim]
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"mesh.{axis}={mesh.shape[axis]} does not divide {dim}={size} of {path_name(path)}"
                )
        return NamedSharding(mesh, spec(*dims))

    return jax.tree.map_with_path(one, params)


def tree_shardings(tree: Any, params: Any, mesh: Mesh) -> Any:
    """Shardings for any tree that holds copies of the parameters, as optimizer states do.

    A leaf whose path ends in a parameter's path, and which has its shape, lies as that parameter does; every other
    leaf (counters, factored moments) is whole on every device.
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


def _dict_keys(path: tuple) -> tuple[str, ...]:
    return tuple(k.key for k in path if isinstance(k, jax.tree_util.DictKey))
