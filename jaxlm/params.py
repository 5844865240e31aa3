"""What is known about a parameter by its name: dims, layout in Hugging Face files, weight decay, Muon.

A parameter's name is the last part of its path in the tree (`query` in `backbone/stack/blocks/attn/query`) and says
what the parameter does, whatever the model. A new parameter needs an entry here and nowhere else; a name without an
entry raises. What a logical dim means on the mesh is in `jaxlm.sharding`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import NamedTuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """Everything that depends on a parameter's name."""

    # logical dims, see `sharding.RULES`; parameters of stacked blocks have "layers" in front
    dims: tuple[str, ...]
    # dims of torch's Linear, Embedding or LayerNorm -> ours, see `hf.table`; experts are separate tensors
    layout: str
    # whether weight decay applies: to matrices, not to biases, norms and tables of positions and types
    decay: bool = False
    # input and output dims, if the parameter is one of the blocks' matrices, which Muon orthogonalises
    matrix: tuple[tuple[str, ...], tuple[str, ...]] | None = None


def _matrix(
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    layout: str,
    *,
    stacked: tuple[str, ...] = (),
) -> Entry:
    """A matrix of the blocks, or one for each index of the `stacked` dims."""
    return Entry(
        dims=(*stacked, *inputs, *outputs), layout=layout, decay=True, matrix=(inputs, outputs)
    )


def _bias(*dims: str, layout: str = "D -> D") -> Entry:
    return Entry(dims=dims, layout=layout)


PARAMS: dict[str, Entry] = {
    # embeddings and output
    "embedding": Entry(dims=("vocab", "embed"), layout="V E -> V E", decay=True),
    "unembedding": Entry(dims=("vocab", "embed"), layout="V E -> V E", decay=True),
    "unembedding_bias": _bias("vocab", layout="V -> V"),
    "position_embedding": Entry(dims=("features", "features"), layout="P E -> P E"),
    "type_embedding": Entry(dims=("features", "features"), layout="P E -> P E"),
    "relative_bias": Entry(dims=("features", "features"), layout="R N -> R N"),
    "relative_embedding": Entry(dims=("features", "features"), layout="R D -> R D"),
    # of a convolution, by the distance to the token
    "taps": Entry(dims=("features", "embed", "features"), layout="F D K -> K D F", decay=True),
    "project": Entry(dims=("features", "embed"), layout="D E -> E D", decay=True),
    "project_bias": _bias("features"),
    # learned inputs of a VAE's prior
    "pseudo_inputs": Entry(dims=("features", "features", "features"), layout="R P E -> R P E"),
    # attention
    "query": _matrix(("embed",), ("heads", "head_dim"), "(N H) D -> D N H"),
    "key": _matrix(("embed",), ("kv_heads", "head_dim"), "(N H) D -> D N H"),
    "value": _matrix(("embed",), ("kv_heads", "head_dim"), "(N H) D -> D N H"),
    "out": _matrix(("heads", "head_dim"), ("embed",), "D (N H) -> N H D"),
    "query_bias": _bias("heads", "head_dim", layout="(N H) -> N H"),
    "key_bias": _bias("kv_heads", "head_dim", layout="(N H) -> N H"),
    "value_bias": _bias("kv_heads", "head_dim", layout="(N H) -> N H"),
    "out_bias": _bias("features"),
    "sinks": _bias("features", layout="N -> N"),
    # projections of the vectors of relative positions
    "position_query": _matrix(("embed",), ("heads", "head_dim"), "(N H) D -> D N H"),
    "position_key": _matrix(("embed",), ("heads", "head_dim"), "(N H) D -> D N H"),
    "position_query_bias": _bias("heads", "head_dim", layout="(N H) -> N H"),
    "position_key_bias": _bias("heads", "head_dim", layout="(N H) -> N H"),
    # MLP and mixture of experts
    "gate": _matrix(("embed",), ("mlp",), "F D -> D F"),
    "up": _matrix(("embed",), ("mlp",), "F D -> D F"),
    "down": _matrix(("mlp",), ("embed",), "D F -> F D"),
    "gate_bias": _bias("mlp", layout="F -> F"),
    "up_bias": _bias("mlp", layout="F -> F"),
    "down_bias": _bias("features"),
    "router": Entry(dims=("embed", "features"), layout="E D -> D E", decay=True),
    "shared_weight": Entry(dims=("embed", "features"), layout="E D -> D E", decay=True),
    "expert_gate": _matrix(("expert_embed",), ("mlp",), "F D -> D F", stacked=("experts",)),
    "expert_up": _matrix(("expert_embed",), ("mlp",), "F D -> D F", stacked=("experts",)),
    "expert_down": _matrix(("mlp",), ("expert_embed",), "D F -> F D", stacked=("experts",)),
    "router_bias": _bias("features"),
    "expert_gate_bias": _bias("experts", "mlp", layout="F -> F"),
    "expert_up_bias": _bias("experts", "mlp", layout="F -> F"),
    "expert_down_bias": _bias("experts", "features", layout="D -> D"),
    # norms, and the dense layers of heads
    "scale": Entry(dims=("features",), layout="D -> D"),
    # a norm with a scale for each head: one tensor for each head in a file
    "head_scale": Entry(dims=("features", "features"), layout="D -> D"),
    "bias": _bias("features"),
    "kernel": Entry(dims=("embed", "features"), layout="F D -> D F", decay=True),
}


# a low-rank adapter of `query` is three parameters beside it: query_lora_a, query_lora_b and query_lora_scale
ADAPTER = "_lora_"
# tables that may have an adapter, besides the matrices
_TABLES = (("vocab",), ("embed",))


def sides(name: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Input and output dims of a parameter that may have an adapter: a matrix of the blocks, or a table of tokens.

    None for every other parameter.
    """
    if name in ("embedding", "unembedding"):
        return _TABLES
    return PARAMS[name].matrix if name in PARAMS else None


@functools.cache
def _adapter_entry(name: str) -> Entry | None:
    """The entry of a parameter of an adapter; None: it is none."""
    base, _, part = name.partition(ADAPTER)
    both = sides(base)
    if both is None or part not in ("a", "b", "scale"):
        return None
    inputs, outputs = both
    stacked = PARAMS[base].dims[: -len(inputs) - len(outputs)]
    dims = {"a": (*stacked, *inputs, "features"), "b": (*stacked, "features", *outputs)}
    return Entry(dims=dims.get(part, ()), layout="", decay=part != "scale")


def path_name(path: tuple) -> str:
    """`backbone/blocks/attn/query` for a path of `jax.tree_util`."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def entry(path: tuple | str) -> Entry:
    """The entry of the parameter at a tree path, or at its `path_name`.

    Raises:
        ValueError: no parameter has this name.
    """
    full = path if isinstance(path, str) else path_name(path)
    name = full.rsplit("/", 1)[-1]
    found = PARAMS.get(name) or _adapter_entry(name)
    if found is None:
        raise ValueError(f"{full}: no entry for {name!r} in jaxlm/params.py; add one to PARAMS")
    return found


def param_dims(path: tuple, ndim: int) -> tuple[str, ...]:
    """Logical dims of the parameter at a tree path.

    Raises:
        ValueError: no entry for its name, or not of this rank.
    """
    dims = entry(path).dims
    if ndim == len(dims) + 1:
        return ("layers", *dims)
    if ndim != len(dims):
        raise ValueError(f"{path_name(path)}: has {ndim} dims, its entry in params.PARAMS {dims}")
    return dims


# beginning of the names of blocks of a stack that are not among the stacked ones, because they have other parameters
DENSE = "dense_"
_DENSE = re.compile(rf"(?<=/){DENSE}(\d+)(?=/)")


def dense_block(layer: int) -> str:
    """The name in a stack of the block of a layer without experts."""
    return f"{DENSE}{layer}"


class Leaf(NamedTuple):
    """A parameter of a tree, and the layers that it belongs to."""

    path: str
    # its path, with `blocks` in place of `dense_3`
    name: str
    # of a stack: the layer of each of its rows, or the one layer of a block that is not stacked
    layers: tuple[int, ...] | int | None = None
    # number of layers of the stack
    depth: int = 0


def leaves(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Leaf]:
    """What is known about the layers of the parameters of a tree, given their shapes by path."""
    dense: dict[str, set[int]] = {}
    for path in shapes:
        if found := _DENSE.search(path):
            dense.setdefault(path[: found.start()], set()).add(int(found[1]))
    rows = {path.partition("blocks/")[0]: x[0] for path, x in shapes.items() if "/blocks/" in path}

    def one(path: str) -> Leaf:
        found = _DENSE.search(path)
        stack = path[: found.start()] if found else path.partition("blocks/")[0]
        if not found and "/blocks/" not in path:
            return Leaf(path, path)
        alone = dense.get(stack, set())
        depth = rows.get(stack, 0) + len(alone)
        if found:
            return Leaf(path, _DENSE.sub("blocks", path), int(found[1]), depth)
        return Leaf(path, path, tuple(i for i in range(depth) if i not in alone), depth)

    return {path: one(path) for path in shapes}


def matrix_dims(path: tuple, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Indices of the input and output dims of a matrix of the blocks; None for every other parameter."""
    matrix = entry(path).matrix
    if matrix is None:
        return None
    dims = param_dims(path, ndim)
    inputs, outputs = (tuple(dims.index(dim) for dim in side) for side in matrix)
    return inputs, outputs
