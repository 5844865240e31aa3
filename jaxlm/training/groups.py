"""Groups of parameters, and the parts of a parameter tree that belong to each.

The blocks of a stack are stacked in arrays with a dim L in front, so a group may own some rows of an array. What a
group owns is a tree of its own, with the names of the whole one: gradients and optimizer states exist for those only.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.config import FinetuneConfig, GroupConfig, RunConfig
from jaxlm.params import path_name

# the group of all parameters that no other group names
REST = "rest"
_BLOCKS = re.compile(r"\[(-?\d*):(-?\d*)\]")


def of_config(config: RunConfig) -> tuple[GroupConfig, ...]:
    """The groups of a run without phases; those of the short form `train_only` are written out."""
    if not isinstance(config, FinetuneConfig) or config.train_only == "all":
        return config.groups
    frozen = GroupConfig(name="frozen", params=("backbone/*",), frozen=True)
    if config.train_only == "head":
        return (frozen,)
    last = f"backbone/*blocks[-{config.last_blocks}:]*"
    return (GroupConfig(name=REST, params=("head/*", "backbone/final_norm/*", last)), frozen)


class Split:
    """The division of a parameter tree into groups; a parameter belongs to the first group that names it."""

    def __init__(self, groups: Sequence[GroupConfig], params: Any):
        """Of nested dicts of (abstract) arrays.

        Raises:
            ValueError: two groups of a name, a pattern that no parameter has, or nothing left to train.
        """
        names = [group.name for group in groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"groups: two groups are called {name!r}")
        if REST not in names:
            groups = (*groups, GroupConfig(name=REST, params=("*",)))
        leaves = jax.tree.leaves_with_path(params)
        # for each leaf the index of its group, or of the group of each of its rows [L]
        owners = {path_name(path): _owners(path_name(path), x.shape, groups) for path, x in leaves}
        for group in groups:
            for pattern in group.params:
                if pattern != "*" and not any(_matches(pattern, name) for name in owners):
                    tops = sorted({"/".join(name.split("/")[:2]) for name in owners})
                    raise ValueError(
                        f"groups: {group.name!r} names {pattern!r}, and no parameter is called that; there are "
                        f"{', '.join(tops)}"
                    )
        used = {int(i) for owner in owners.values() for i in np.unique(owner)}
        # groups that are trained and have parameters
        self.trained = {
            group.name: group for i, group in enumerate(groups) if i in used and not group.frozen
        }
        if not self.trained:
            raise ValueError("groups: every parameter is frozen: nothing to train")
        self._owners = owners
        self._index = {group.name: i for i, group in enumerate(groups)}

    def take(self, tree: Any, name: str) -> Any:
        """What of a tree (parameters, or anything with their paths) the group owns, as a tree without the rest."""
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
        """The tree with the parts of some groups, each as `take` gives it, in their places."""
        if list(parts) == [REST] and list(self.trained) == [REST] and self.is_whole(REST):
            return parts[REST]
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
        mine, theirs = self._index[name], other._index[name]
        return all(
            np.array_equal(owner == mine, other._owners[path] == theirs)
            for path, owner in self._owners.items()
        )

    def owns_any(self, name: str, patterns: Sequence[str]) -> bool:
        """Whether a group has some of the parameters that patterns name."""
        return any(
            np.any(owner == self._index[name]) and any(_matches(p, path) for p in patterns)
            for path, owner in self._owners.items()
        )

    def is_whole(self, name: str) -> bool:
        """Whether the group owns every parameter."""
        return all(np.all(owner == self._index[name]) for owner in self._owners.values())

    def _rows(self, path: tuple, name: str) -> Any:
        """What of a leaf the group owns: ALL, rows of the dim L in front, or None for nothing."""
        mine = self._owners[path_name(path)] == self._index[name]
        if np.all(mine):
            return ALL
        rows = np.flatnonzero(mine)
        if not len(rows):
            return None
        if rows[-1] - rows[0] + 1 == len(rows):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows


ALL = slice(None)


def _by_path(tree: Any) -> dict[str, Any]:
    return {path_name(path): x for path, x in jax.tree.leaves_with_path(tree)}


def _owners(name: str, shape: tuple[int, ...], groups: Sequence[GroupConfig]) -> np.ndarray:
    """The index of the first group that names a leaf, or for stacked blocks one for each block."""
    stacked = "/blocks/" in name
    owner = np.full(shape[0] if stacked else (), -1)
    for i, group in enumerate(groups):
        for pattern in group.params:
            if not _matches(pattern, name):
                continue
            chosen = np.ones(owner.shape, bool)
            if part := _BLOCKS.search(pattern):
                low, high = (int(x) if x else None for x in part.groups())
                chosen = np.zeros(owner.shape, bool)
                chosen[low:high] = True
            owner[chosen & (owner < 0)] = i
    owner[owner < 0] = [group.name for group in groups].index(REST)
    return owner


def named(path: tuple, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names the parameter at a tree path."""
    return any(_matches(pattern, path_name(path)) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern such as "backbone/*blocks[-2:]*" names a leaf, of which it may name some blocks only."""
    if _BLOCKS.search(pattern):
        return "/blocks/" in name and fnmatch.fnmatchcase(name, _BLOCKS.sub("", pattern))
    return fnmatch.fnmatchcase(name, pattern)
