"""Groups of parameters, and the parts of a parameter tree that belong to each.

The blocks of a stack are stacked in arrays with a leading dim L, so a group may own some rows of an array. The part of
the tree that a group owns is a tree with the same names: gradients and optimizer states exist for these parts only.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.config import FinetuneConfig, GroupConfig, RunConfig
from jaxlm.models import lora
from jaxlm.params import Leaf, leaves, path_name

# the group of all parameters that no other group names
REST = "rest"
_BLOCKS = re.compile(r"\[(-?\d*):(-?\d*)\]")


def of_config(config: RunConfig, params: Any) -> tuple[GroupConfig, ...]:
    """The groups of a run without phases; `train_only` is expanded to groups of its parameters."""
    if not isinstance(config, FinetuneConfig) or config.train_only == "all":
        return config.groups
    frozen = GroupConfig(name="frozen", params=("backbone/*",), frozen=True)
    if config.train_only == "head":
        return (frozen,)
    if config.last_blocks > (count := depth(leaves_of(params))):
        raise ValueError(f"last_blocks={config.last_blocks}: the model has {count} blocks")
    last = f"backbone/*blocks[-{config.last_blocks}:]*"
    # a model with its norms behind the sums, such as BERT, has no final one
    above = [p for p in ("head/*", "backbone/*final_norm/*") if fnmatch.filter(_by_path(params), p)]
    trained = GroupConfig(name="trained", params=(*above, last))
    return (trained, frozen)


def with_base(
    config: RunConfig, groups: Sequence[GroupConfig], params: Any
) -> tuple[GroupConfig, ...]:
    """The groups of a phase, behind the frozen parameters to which adapters are added, if the run has adapters."""
    if not isinstance(config, FinetuneConfig) or not config.lora.rank:
        return tuple(groups)
    trained = set(lora.trained_whole(params, config.lora.train))
    is_trained = lambda path: (
        path in trained or any(fnmatch.fnmatchcase(path, p) for p in lora.TRAINED)
    )
    base = tuple(path for path in lora.flat(params) if not is_trained(path))
    return (GroupConfig(name="base", params=base, frozen=True), *groups)


class Split:
    """The division of a parameter tree into groups; a parameter belongs to the first group that names it."""

    def __init__(self, groups: Sequence[GroupConfig], params: Any):
        """Divides nested dicts of (abstract) arrays.

        Raises:
            ValueError: two groups have the same name, a pattern matches no parameter, a group has no parameter that
                no earlier group names, or nothing is trained.
        """
        names = [group.name for group in groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"groups: two groups are called {name!r}")
        if REST not in names:
            groups = (*groups, GroupConfig(name=REST, params=("*",)))
        known = leaves_of(params)
        # for each leaf the index of its group, or the index of the group of each row [L]
        owners = {path: _owners(leaf, groups) for path, leaf in known.items()}
        for group in groups:
            check_patterns(group.params, params, f"groups: pattern {{}} of {group.name!r}")
        used = {int(i) for owner in owners.values() for i in np.unique(owner)}
        for i, name in enumerate(names):
            if i not in used:
                earlier = ", ".join(names[:i])
                raise ValueError(
                    f"groups: {name!r} has no parameter left, because a parameter belongs to the first group that "
                    f"names it: all of its own are in {earlier}; put {name!r} before them, or remove it"
                )
        # groups that are trained and have parameters
        self.trained = {
            group.name: group for i, group in enumerate(groups) if i in used and not group.frozen
        }
        if not self.trained:
            raise ValueError("groups: every parameter is frozen: nothing to train")
        # names of the frozen groups
        self.frozen = tuple(group.name for group in groups if group.frozen)
        self._leaves, self._owners = known, owners
        self._index = {group.name: i for i, group in enumerate(groups)}

    def take(self, tree: Any, name: str) -> Any:
        """The part that the group owns of a tree (parameters, or any tree with the same paths)."""
        out: dict = {}
        for path, x in jax.tree.leaves_with_path(tree):
            rows = self._rows(path, name)
            if rows is None:
                continue
            node = out
            for key in path[:-1]:
                node = node.setdefault(key.key, {})
            node[path[-1].key] = x if rows is ALL or not np.ndim(x) else x[rows]
        return out

    def put(self, tree: Any, parts: dict[str, Any]) -> Any:
        """The tree with the parts of some groups, each in the form that `take` returns, replaced."""
        flat = {name: _by_path(part) for name, part in parts.items()}

        def one(path, x):
            for name, part in flat.items():
                rows = self._rows(path, name)
                if rows is ALL:
                    x = part[path_name(path)]
                elif rows is not None:
                    x = x.at[rows].set(part[path_name(path)])
            return x

        return jax.tree.map_with_path(one, tree)

    def owns_the_same(self, other: Split, name: str) -> bool:
        """Whether a group has the same parameters in another division of the tree."""
        index, other_index = self._index[name], other._index[name]
        return all(
            np.array_equal(owner == index, other._owners[path] == other_index)
            for path, owner in self._owners.items()
        )

    def owns_any(self, name: str, patterns: Sequence[str]) -> bool:
        """Whether a group owns any parameter that one of the patterns matches."""
        return any(
            np.any((owner == self._index[name]) & matched(self._leaves[path], patterns))
            for path, owner in self._owners.items()
        )

    def _rows(self, path: tuple, name: str) -> Any:
        """The part of a leaf that the group owns: ALL, rows of the leading dim L, or None."""
        owned = self._owners[path_name(path)] == self._index[name]
        if np.all(owned):
            return ALL
        rows = np.flatnonzero(owned)
        if not len(rows):
            return None
        if rows[-1] - rows[0] + 1 == len(rows):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows


ALL = slice(None)


def _by_path(tree: Any) -> dict[str, Any]:
    return {path_name(path): x for path, x in jax.tree.leaves_with_path(tree)}


def leaves_of(params: Any) -> dict[str, Leaf]:
    """What is known about the layers of the parameters of a tree of (abstract) arrays, by path."""
    return leaves({path: x.shape for path, x in _by_path(params).items()})


def depth(known: Mapping[str, Leaf]) -> int:
    """The number of blocks; of an encoder and a decoder that of the deeper one."""
    return max((leaf.depth for leaf in known.values()), default=0)


def _owners(leaf: Leaf, groups: Sequence[GroupConfig]) -> np.ndarray:
    """The index of the first group that names a leaf; for stacked blocks one index per block."""
    owner = np.full(_shape(leaf), -1)
    for i, group in enumerate(groups):
        owner[(owner < 0) & matched(leaf, group.params)] = i
    owner[owner < 0] = [group.name for group in groups].index(REST)
    return owner


def matched(leaf: Leaf, patterns: Sequence[str]) -> np.ndarray:
    """Whether a pattern such as "head/*" matches a leaf, bool [], or "*blocks[-2:]*" blocks of it, bool [rows]."""
    out = np.zeros(_shape(leaf), bool)
    for pattern in patterns:
        part = _BLOCKS.search(pattern)
        if part is None:
            out |= any(fnmatch.fnmatchcase(name, pattern) for name in (leaf.path, leaf.name))
        elif leaf.layers is not None and fnmatch.fnmatchcase(leaf.name, _BLOCKS.sub("", pattern)):
            low, high = (int(x) if x else None for x in part.groups())
            out |= np.isin(leaf.layers, range(leaf.depth)[low:high])
    return out


def _shape(leaf: Leaf) -> tuple[int, ...]:
    """[rows] of a leaf of stacked blocks, which may be divided; [] for others."""
    return (len(leaf.layers),) if isinstance(leaf.layers, tuple) else ()


def check_patterns(patterns: Sequence[str], params: Any, where: str) -> None:
    """Raises ValueError for a pattern that matches no parameter; `where` says with {} for the pattern what has it."""
    known = leaves_of(params)
    for pattern in patterns:
        if pattern != "*" and not any(np.any(matched(leaf, [pattern])) for leaf in known.values()):
            tops = sorted({"/".join(name.split("/")[:2]) for name in known})
            raise ValueError(
                f"{where.format(repr(pattern))} matches no parameter; there are {', '.join(tops)}"
            )


def reset(params: Any, fresh: Any, patterns: Sequence[str]) -> Any:
    """The parameters with those that a pattern matches replaced by fresh ones."""
    known = leaves_of(params)

    def one(path: tuple, x: jax.Array, new: jax.Array) -> jax.Array:
        chosen = matched(known[path_name(path)], patterns)
        if np.all(chosen):
            return new
        rows = np.flatnonzero(chosen)
        return x.at[rows].set(new[rows]) if len(rows) else x

    return jax.tree.map_with_path(one, params, fresh)
