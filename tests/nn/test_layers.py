"""Layers other than attention."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import collectives

from jaxlm import sharding
from jaxlm.config import ComputeConfig, DecoderConfig, MeshConfig
from jaxlm.nn.attention import Cache, write_cache
from jaxlm.nn.layers import ACTIVATIONS, MLP, Norm, compute_dtype, dropout, look_up, split_key

X = np.linspace(-4, 4, 10)
RNG = np.random.default_rng(0)


def erf(x):
    return np.vectorize(math.erf)(x)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * (1 + erf(x / 2**0.5)) / 2),
        (
            "gelu_tanh",
            lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("relu", lambda x: np.maximum(x, 0)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_activations_and_their_slopes(name, formula):
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(ACTIVATIONS[name](x), formula(X), atol=1e-6)
    slope = jax.grad(lambda x: ACTIVATIONS[name](x).sum())(x)
    np.testing.assert_allclose(slope, (formula(X + 1e-6) - formula(X - 1e-6)) / 2e-6, atol=1e-5)
    half = ACTIVATIONS[name](x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("gated", [False, True])
def test_mlp(gated):
    activation = "reglu" if gated else "relu"
    config = DecoderConfig(dim=4, mlp_dim=6, num_heads=1, activation=activation)
    weights = {"up": (4, 6), "up_bias": (6,), "down": (6, 4), "down_bias": (4,)}
    weights |= {"gate": (4, 6), "gate_bias": (6,)} if gated else {}
    w = {name: RNG.normal(size=shape) for name, shape in weights.items()}
    x = RNG.normal(size=(2, 3, 4))
    h = x @ w["up"] + w["up_bias"]
    h = np.maximum(x @ w["gate"] + w["gate_bias"], 0) * h if gated else np.maximum(h, 0)
    params = {name: jnp.asarray(v, jnp.float32) for name, v in w.items()}
    got = MLP(config, ComputeConfig()).apply({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, h @ w["down"] + w["down_bias"], atol=1e-5)


def test_a_plus_one_norm_is_initialized_as_plain_rms_norm():
    x = jnp.asarray(RNG.normal(size=(2, 8)), jnp.float32)
    config = DecoderConfig(norm="rms_norm_plus_one", norm_eps=1e-6)
    params = Norm(config).init(jax.random.key(0), x)["params"]
    assert not params["scale"].any()
    got = Norm(config).apply({"params": params}, x)
    np.testing.assert_allclose((np.asarray(got) ** 2).mean(-1), 1.0, rtol=1e-4)


def test_dropout_keeps_the_mean_and_zeroes_its_fraction():
    x = jnp.ones((100, 100))
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(0)), x)


def test_split_key():
    assert split_key(None, 3) == [None] * 3
    data = {tuple(jax.random.key_data(k).tolist()) for k in split_key(jax.random.key(0), 3)}
    assert len(data) == 3


def test_compute_dtype(monkeypatch):
    assert compute_dtype(ComputeConfig()) == jnp.float32
    assert compute_dtype(ComputeConfig(dtype="bfloat16")) == jnp.bfloat16
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compute_dtype(ComputeConfig()) == jnp.bfloat16
    assert compute_dtype(ComputeConfig(dtype="float32")) == jnp.float32


def test_write_cache_writes_each_row_at_its_own_position():
    cache = Cache(jnp.zeros((2, 1, 5, 1)), jnp.zeros((2, 1, 5, 1), jnp.bfloat16))
    new = jnp.arange(1.0, 5.0).reshape(2, 2, 1, 1)
    got = write_cache(cache, new, -new, jnp.array([0, 3]))
    assert got.key[:, 0, :, 0].tolist() == [[1, 2, 0, 0, 0], [0, 0, 0, 3, 4]]
    assert got.value[:, 0, :, 0].tolist() == [[-1, -2, 0, 0, 0], [0, 0, 0, -3, -4]]
    assert got.value.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        (dict(data=2, fsdp=4), 1024),
        (dict(data=1, fsdp=4, tensor=2), 1024),
        # a table that is smaller than the tokens' shares of its width
        (dict(data=2, fsdp=4), 32),
    ],
)
def test_a_look_up_on_a_mesh_moves_the_smaller_of_tokens_and_table(sizes, rows):
    width, shape = 16, (8, 4)
    config = DecoderConfig(vocab_size=rows, dim=width, num_heads=2, num_layers=1)
    compute = ComputeConfig(dtype="bfloat16")
    table = RNG.normal(size=(rows, width)).astype(np.float32)
    # few tokens, which occur often: their gradients are added up in float32
    tokens = RNG.integers(0, 3, shape)
    slope = RNG.normal(size=(*shape, width)).astype(jnp.bfloat16)

    def run(table, tokens, slope):
        x, pull = jax.vjp(lambda table: look_up(table, tokens, config, compute), table)
        return x, pull(slope)[0]

    mesh = sharding.make_mesh(MeshConfig(**sizes))
    place = lambda x, *dims: jax.device_put(x, jax.NamedSharding(mesh, sharding.spec(*dims)))
    arguments = place(table, "vocab", "embed"), place(tokens, "batch"), place(slope, "batch")
    with jax.set_mesh(mesh):
        placement = (arguments[2].sharding, arguments[0].sharding)
        program = jax.jit(run, out_shardings=placement).lower(*arguments).compile()
    got, want = program(*arguments), jax.jit(run)(table, tokens, slope)
    np.testing.assert_array_equal(*(x[0].astype(np.float32) for x in (got, want)))
    np.testing.assert_allclose(got[1], want[1], atol=1e-5)
    largest = max(size for _, size, _ in collectives(program.as_text()))
    share = rows * width // mesh.shape["fsdp"] // mesh.shape["tensor"]
    # replicas add up their shares of the gradient
    assert largest <= max(share, math.prod(shape) * width) if rows == 1024 else largest > share
