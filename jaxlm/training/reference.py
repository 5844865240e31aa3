"""The reference model of a task: parameters that are not trained, derived from those at the start of the run.

They are not saved but derived again when needed; a fingerprint in the checkpoint verifies that they are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.checkpoint.fingerprint import fingerprint
from jaxlm.params import path_name
from jaxlm.tasks.task import Task, init_params
from jaxlm.training.state import init_key

# takes the abstract parameters, returns the pretrained parts of them
Load = Callable[[Any], dict[str, Any]]


def abstract(task: Task, params: Any, mesh: Mesh) -> Any:
    """Shapes and shardings of the reference; parts that match parameters are sharded like them. None: no reference."""
    shapes = jax.eval_shape(task.reference, params)
    return sharding.with_shardings(shapes, sharding.tree_shardings(shapes, params, mesh))


def initial_params(task: Task, params: Any, seed: int, load: Load | None) -> Any:
    """The loaded parameters, and random ones for the rest; XLA removes the computation of unused random parameters."""
    loaded = {} if load is None else load(params)
    known = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(loaded)}
    wanted, structure = jax.tree_util.tree_flatten_with_path(params)
    rest = {path_name(path): x for path, x in wanted if path_name(path) not in known}
    if rest:

        def init(key: jax.Array) -> dict[str, Any]:
            leaves = jax.tree_util.tree_leaves_with_path(init_params(task, key))
            return {name: x for path, x in leaves if (name := path_name(path)) in rest}

        known |= jax.jit(init, out_shardings=sharding.shardings_of(rest))(init_key(seed))
    return jax.tree.unflatten(structure, [known[path_name(path)] for path, _ in wanted])


def make(task: Task, shapes: Any, params: Any) -> Any:
    """The reference, copied, because the first training step donates the buffers of the parameters.

    Args:
        task: derives the reference from parameters.
        shapes: from `abstract`.
        params: from `initial_params`.
    """
    copy = lambda p: jax.tree.map(jnp.copy, task.reference(p))
    return jax.jit(copy, out_shardings=sharding.shardings_of(shapes))(params)


def check(reference: Any, stored: str | None, where: object) -> None:
    """Raises ValueError unless the reference has the fingerprint stored in a checkpoint."""
    if stored != digest(reference):
        raise ValueError(
            f"{where}: the reference model has changed since the run began: restore the model of --init"
        )


def digest(reference: Any) -> str | None:
    """A short fingerprint; None if there is no reference."""
    if reference is None:
        return None
    sums = json.dumps(fingerprint(reference), sort_keys=True, default=str)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
