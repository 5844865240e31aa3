"""Reads optimizer states of version-1 checkpoints, whose structure differed for clipping and frozen parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import FinetuneConfig, RunConfig
from jaxlm.params import path_name
from jaxlm.training import optimizer
from jaxlm.training.phases import Phase


def differs(config: RunConfig) -> bool:
    """Whether the optimizer state of a run with this config had another structure in version 1."""
    return config.optimizer.clip_norm == 0 or _has_multipliers(config)


def _has_multipliers(config: RunConfig) -> bool:
    return isinstance(config, FinetuneConfig) and (
        config.layer_decay != 1 or config.train_only != "all"
    )


def abstract_opt_state(config: RunConfig, phase: Phase, params: Any, mesh: Mesh) -> Any:
    """Shapes and shardings of the state in version 1.

    Raises:
        ValueError: version 1 trained such a run incorrectly.
    """
    named = optimizer._named(config.optimizer, config.steps)
    if config.optimizer.clip_norm:
        named = optax.chain(optax.clip_by_global_norm(config.optimizer.clip_norm), named)
    if _has_multipliers(config):
        if config.optimizer.name == "schedule_free_adamw":
            raise ValueError(
                "this run was started by an older jaxlm, whose schedule-free optimizer was incorrect with train_only "
                "or layer_decay: start it again in another folder"
            )
        named = optax.chain(named, optax.stateless(lambda updates, _: updates))
        owned = {path_name(path) for path, _ in jax.tree.leaves_with_path(_take(phase, params))}
        labels = jax.tree.map_with_path(
            lambda path, _: "train" if path_name(path) in owned else "keep", params
        )
        named = optax.partition({"train": named, "keep": optax.set_to_zero()}, labels)
    shapes = jax.eval_shape(named.init, params)
    return sharding.with_shardings(shapes, sharding.tree_shardings(shapes, params, mesh))


def upgrade_opt_state(config: RunConfig, phase: Phase, old: Any, abstract: Any) -> Any:
    """The state in the current structure, which `abstract` has."""
    if _has_multipliers(config):
        old = old.inner_states["train"].inner_state[0]
    named = old[1] if config.optimizer.clip_norm else old
    # subtrees with the structure of the parameters keep only the rows that are trained
    is_params = lambda x: isinstance(x, dict) and set(x) <= {"backbone", "head"}
    narrow = lambda x: phase.split.take(x, next(iter(phase.trained))) if is_params(x) else x
    leaves = jax.tree.leaves(jax.tree.map(narrow, named, is_leaf=is_params))
    expected, structure = jax.tree.flatten(abstract)
    if [x.shape for x in leaves] != [x.shape for x in expected]:
        raise ValueError(
            "the optimizer state of this run was written by an older jaxlm and does not match: start it again in "
            "another folder"
        )
    placed = [jax.device_put(x, e.sharding) for x, e in zip(leaves, expected)]
    return jax.tree.unflatten(structure, placed)


def _take(phase: Phase, params: Any) -> Any:
    whole = jax.tree.map(lambda x: np.zeros(x.shape[:1], bool), params)
    return phase.split.take(whole, next(iter(phase.trained)))
