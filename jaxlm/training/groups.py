"""Groups of parameters, and the parts of a parameter tree that belong to each.

The blocks of a stack are stacked in arrays with a leading dim L, so a group may own some rows of an array. The part of
the tree that a group owns is a tree with the same names: gradients and optimizer states exist for these parts only.
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
    """The groups of a run without phases; `train_only` is expanded to groups."""
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
        """Divides nested dicts of (abstract) arrays.

        Raises:
            ValueError: two groups have the same name, a pattern matches no parameter, or nothing is trained.
        """
        names = [group.name for group in groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"groups: two groups are called {name!r}")
        if REST not in names:
            groups = (*groups, GroupConfig(name=REST, params=("*",)))
        leaves = jax.tree.leaves_with_path(params)
        # for each leaf the index of its group, or the index of the group of each row [L]
        owners = {path_name(path): _owners(path_name(path), x.shape, groups) for path, x in leaves}
        for group in groups:
            for pattern in group.params:
                if pattern != "*" and not any(_matches(pattern, name) for name in owners):
                    tops = sorted({"/".join(name.split("/")[:2]) for name in owners})
                    raise ValueError(
                        f"groups: pattern {pattern!r} of {group.name!r} matches no parameter; there are "
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
            np.any(owner == self._index[name]) and any(_matches(p, path) for p in patterns)
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


def _owners(name: str, shape: tuple[int, ...], groups: Sequence[GroupConfig]) -> np.ndarray:
    """The index of the first group that names a leaf; for stacked blocks one index per block."""
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
    """Whether one of the patterns matches the parameter at a tree path."""
    return any(_matches(pattern, path_name(path)) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern such as "backbone/*blocks[-2:]*" matches a leaf, or some blocks of it."""
    if _BLOCKS.search(pattern):
        return "/blocks/" in name and fnmatch.fnmatchcase(name, _BLOCKS.sub("", pattern))
    return fnmatch.fnmatchcase(name, pattern)
