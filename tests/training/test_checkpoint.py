"""Checkpoints survive what happens to disks and processes: see each test's name."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.config import CheckpointConfig
from jaxlm.training import checkpoint as ck

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def make_mesh(data, model):
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto,) * 2, devices=devices)


def init(seed):
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    params = {
        "backbone": {"w": jax.random.normal(a, (16, 8)), "b": jax.random.normal(b, (8,))},
        "head": {"table": jax.random.normal(c, (8, 24)).astype(jnp.bfloat16)},
    }
    return {"params": params, "opt_state": OPTIMIZER.init(params)}


def shardings(mesh):
    return jax.tree.map(
        lambda x: NamedSharding(mesh, P("data", "model") if x.ndim == 2 else P()),
        jax.eval_shape(init, 0),
    )


def state_on(mesh, seed):
    return jax.jit(init, static_argnums=0, out_shardings=shardings(mesh))(seed)


def target_on(mesh, **json_items):
    put = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return {**jax.tree.map(put, jax.eval_shape(init, 0), shardings(mesh)), **json_items}


def items(state, step):
    return {**state, "step": step, "config": {"dim": 8, "name": "é"}, "data": {"seen": step * 4}}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def mesh():
    return make_mesh(4, 2)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def run(tmp_path, mesh, lines):
    """A run folder with checkpoints of steps 1, 2 and 3, made from the seeds 1, 2 and 3."""
    with open_run(tmp_path, lines, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, items(state_on(mesh, step), step))
    return tmp_path


def open_run(run, lines, best_metric=None, best_is_lower=True, **config):
    return ck.Checkpoints(
        run / "checkpoints",
        CheckpointConfig(**config),
        best_metric=best_metric,
        best_is_lower=best_is_lower,
        report=lines.append,
    )


@pytest.mark.parametrize("shape", [(2, 4), (8, 1), (1, 1)])
def test_restores_bit_for_bit_on_another_mesh(run, lines, mesh, shape):
    other = make_mesh(*shape)
    with open_run(run, lines) as checkpoints:
        step, got = checkpoints.restore(target_on(other, step=None, config=None, data=None))
    assert step == got.pop("step") == 3
    assert got.pop("config") == {"dim": 8, "name": "é"}
    assert got.pop("data") == {"seen": 12}
    assert got["params"]["backbone"]["w"].sharding == NamedSharding(other, P("data", "model"))
    assert_same(got, state_on(mesh, 3))
    assert lines == []
