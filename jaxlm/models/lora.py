"""Low-rank adapters of matrices (LoRA, Hu et al. 2021, 2106.09685), as functions on the tree of parameters.

The adapter of a matrix `query` is three parameters beside it: `query_lora_a` [inputs, R], `query_lora_b` [R, outputs]
and `query_lora_scale`, with the dims that the matrix has, layers and experts in front. The modules add
scale * (x a) b to x query where they find one (`nn.layers.kernel`), so that every model and every task takes such a
tree as it takes one without adapters.
"""

from __future__ import annotations

import difflib
import fnmatch
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config.lora import ALL_LINEAR, LoraConfig
from jaxlm.nn.layers import with_adapter
from jaxlm.ops.linear import merged
from jaxlm.params import ADAPTER, PARAMS, path_name, sides

PARTS = ("a", "b", "scale")
# patterns of the parameters of adapters that are trained
TRAINED = (f"*{ADAPTER}a", f"*{ADAPTER}b")


def add(params: Any, key: jax.Array, config: LoraConfig) -> Any:
    """The parameters with adapters that add nothing yet: one of the two matrices is 0, the other is random.

    Args:
        params: nested dicts of arrays.
        key: random key.
        config: the rank, and which matrices get an adapter.

    Raises:
        ValueError: a target names no matrix.
    """
    names = targets(params, config.targets)

    def one(path: str, x: jax.Array) -> dict[str, jax.Array]:
        shapes = adapter_shapes(path, x.shape, config.rank)
        # by name, so that a matrix has the same adapter whatever other targets there are
        own = jax.random.fold_in(key, zlib.crc32(path.encode()))
        made = {part: jnp.zeros(shapes[part], x.dtype) for part in ("a", "b")}
        name = path.rsplit("/", 1)[-1]
        if name == "embedding":
            made["b"] = jax.random.normal(own, shapes["b"], x.dtype)
        else:
            # as peft: uniform by the number of inputs, which a table of outputs [V, D] has last
            random = "b" if name == "unembedding" else "a"
            shape = shapes[random]
            inputs = x.shape[-1] if name == "unembedding" else _count(path, x.shape)
            limit = inputs**-0.5
            made[random] = jax.random.uniform(own, shape, x.dtype, -limit, limit)
        return {**made, "scale": jnp.full(shapes["scale"], config.scale, x.dtype)}

    return put(params, {path: one(path, x) for path, x in flat(params).items() if path in names})


def targets(params: Any, patterns: tuple[str, ...]) -> list[str]:
    """The paths of the matrices that the patterns name; see `LoraConfig.targets`.

    Raises:
        ValueError: a pattern names none.
    """
    known = [path for path in flat(params) if sides(_name(path)) is not None]
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == ALL_LINEAR:
            matched = [p for p in known if p.startswith("backbone/") and _is_matrix(p)]
        else:
            matched = [p for p in known if _name(p) == pattern or fnmatch.fnmatchcase(p, pattern)]
        if not matched:
            names = sorted({_name(path) for path in known})
            near = difflib.get_close_matches(pattern, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"lora.targets: {pattern!r} names no matrix of the model; {hint}")
        chosen.update(matched)
    return [path for path in known if path in chosen]


def adapter_shapes(path: str, shape: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the parts of the adapter of a matrix; layers and experts are in front."""
    inputs, outputs, stacked = _split(path, shape)
    depth = len(shape) - len(PARAMS[_name(path)].dims)
    return {
        "a": (*stacked, *inputs, rank),
        "b": (*stacked, rank, *outputs),
        "scale": shape[:depth],
    }


def _split(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The sizes of the input dims, of the output dims, and of the dims in front."""
    both = sides(_name(path))
    assert both is not None, path
    count = len(both[0]) + len(both[1])
    own = shape[-count:]
    return own[: len(both[0])], own[len(both[0]) :], shape[:-count]


def _count(path: str, shape: tuple[int, ...]) -> int:
    """The number of inputs."""
    result = 1
    for size in _split(path, shape)[0]:
        result *= size
    return result


def merge(params: Any) -> Any:
    """The parameters without adapters, each added to its matrix."""
    if not isinstance(params, Mapping):
        return params
    return {
        name: merged(with_adapter(params, name)) if f"{name}{ADAPTER}a" in params else merge(x)
        for name, x in params.items()
        if ADAPTER not in name
    }


def without(params: Any) -> Any:
    """The parameters without adapters, as they were before."""
    if not isinstance(params, Mapping):
        return params
    return {name: without(x) for name, x in params.items() if ADAPTER not in name}


def has_adapters(params: Any) -> bool:
    """Whether there is any adapter among the parameters."""
    return any(ADAPTER in path for path in flat(params))


def trained_whole(params: Any, patterns: tuple[str, ...] | None) -> list[str]:
    """The paths of the parameters without adapters that are trained as a whole; see `LoraConfig.train`.

    Raises:
        ValueError: a pattern names no parameter.
    """
    paths = [path for path in flat(params) if ADAPTER not in path]
    if patterns is None:
        head = [path for path in paths if path.startswith("head/")]
        predicts_tokens = any(_name(path).startswith("unembedding") for path in head)
        return [] if predicts_tokens else head
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
        if not matched:
            raise ValueError(f"lora.train: {pattern!r} matches no parameter")
        chosen.update(matched)
    return [path for path in paths if path in chosen]


def flat(params: Any) -> dict[str, Any]:
    """The leaves by their `params.path_name`."""
    return {path_name(path): x for path, x in jax.tree.leaves_with_path(params)}


def put(params: Any, adapters: Mapping[str, Mapping[str, Any]]) -> Any:
    """The parameters with adapters beside the matrices at these paths, each the parts by name."""
    beside: dict[str, dict[str, Any]] = {}
    for path, parts in adapters.items():
        module, _, name = path.rpartition("/")
        own = beside.setdefault(module, {})
        own.update({f"{name}{ADAPTER}{part}": x for part, x in parts.items()})

    def rebuild(tree: Any, where: str) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        inner = {k: rebuild(x, f"{where}/{k}" if where else k) for k, x in tree.items()}
        return {**inner, **beside.get(where, {})}

    return rebuild(params, "")


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _is_matrix(path: str) -> bool:
    return PARAMS[_name(path)].matrix is not None
