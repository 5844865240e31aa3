"""The reference of a task: parameters that are compared with and not trained, made from those at the start of the run.

It is not saved. Whoever needs it makes it again, and its fingerprint in the checkpoint says whether it is the same.
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
from jaxlm.tasks.task import Task
from jaxlm.training.state import init_key

# from the abstract parameters to those parts of them that a run starts with
Load = Callable[[Any], dict[str, Any]]


def abstract(task: Task, params: Any, mesh: Mesh) -> Any:
    """Shapes and shardings from abstract parameters: what is like them is sharded as they are. None: no reference."""
    shapes = jax.eval_shape(task.reference, params)
    placement = sharding.tree_shardings(shapes, params, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placement
    )


def initial_params(task: Task, params: Any, seed: int, load: Load | None) -> Any:
    """The parameters at the start: what is loaded, and random ones for the rest; XLA drops those that are not used."""
    loaded = {} if load is None else load(params)
    rest = {name: tree for name, tree in params.items() if name not in loaded}
    if not rest:
        return loaded
    placement = jax.tree.map(lambda x: x.sharding, rest)
    make = jax.jit(
        lambda key: {name: task.init(key)[name] for name in rest}, out_shardings=placement
    )
    return {**make(init_key(seed)), **loaded}


def make(task: Task, shapes: Any, params: Any) -> Any:
    """The reference, in buffers of its own: the first training step gives those of the parameters away.

    Args:
        task: whose reference it is.
        shapes: from `abstract`.
        params: from `initial_params`.
    """
    copy = lambda p: jax.tree.map(jnp.copy, task.reference(p))
    return jax.jit(copy, out_shardings=jax.tree.map(lambda x: x.sharding, shapes))(params)


def check(reference: Any, stored: str | None, where: object) -> None:
    """Raises ValueError unless the reference has the fingerprint that a checkpoint holds."""
    if stored != digest(reference):
        raise ValueError(
            f"{where}: the reference model is not what it was when the run began: bring the model of --init back"
        )


def digest(reference: Any) -> str | None:
    """A short fingerprint; None without a reference."""
    if reference is None:
        return None
    sums = json.dumps(fingerprint(reference), sort_keys=True, default=str)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
