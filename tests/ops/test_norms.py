"""Norms against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import norms

pytestmark = pytest.mark.usefixtures("formulas")

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (4, 5, 16))
SCALE = RNG.normal(1.0, 0.3, 16)
BIAS = RNG.normal(0.0, 0.3, 16)
EPS = 1e-3


def layer_norm(x, scale, bias, sqrt=np.sqrt):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / sqrt(variance + EPS) * scale + bias


def rms_norm(x, scale, sqrt=np.sqrt):
    return x / sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_layer_norm():
    got = norms.layer_norm(f32(X), f32(SCALE), f32(BIAS), eps=EPS)
    np.testing.assert_allclose(got, layer_norm(X, SCALE, BIAS), atol=2e-6)


def test_layer_norm_without_bias():
    got = norms.layer_norm(f32(X), f32(SCALE), eps=EPS)
    np.testing.assert_allclose(got, layer_norm(X, SCALE, 0.0), atol=2e-6)


def test_rms_norm():
    got = norms.rms_norm(f32(X), f32(SCALE), eps=EPS)
    np.testing.assert_allclose(got, rms_norm(X, SCALE), atol=2e-6)


def test_layer_norm_keeps_small_differences_on_a_large_mean():
    x = 1000.0 + 0.1 * RNG.normal(size=(3, 16))
    exact = layer_norm(np.asarray(x, np.float32).astype(np.float64), 1.0, 0.0)
    got = norms.layer_norm(f32(x), jnp.ones(16), eps=EPS)
    np.testing.assert_allclose(got, exact, atol=1e-2)


@pytest.mark.parametrize("norm", [norms.layer_norm, norms.rms_norm])
def test_bfloat16_is_rounded_once_at_the_end(norm):
    x = jnp.asarray(X, jnp.bfloat16)
    got = norm(x, f32(SCALE), eps=EPS)
    assert got.dtype == jnp.bfloat16
    exact = norm(x.astype(jnp.float32), f32(SCALE), eps=EPS).astype(jnp.bfloat16)
    np.testing.assert_array_equal(got.astype(np.float32), exact.astype(np.float32))


@pytest.mark.parametrize("norm", [norms.layer_norm, norms.rms_norm])
def test_a_row_of_zeros_has_finite_value_and_gradient(norm):
    def total(x):
        return norm(x, jnp.ones(8), eps=1e-6).sum()

    value, gradient = jax.value_and_grad(total)(jnp.zeros((2, 8)))
    assert float(value) == 0.0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("norm", "formula", "arguments"),
    [
        (norms.layer_norm, layer_norm, (X, SCALE, BIAS)),
        (norms.rms_norm, rms_norm, (X, SCALE)),
    ],
)
def test_gradients_are_those_of_the_formula(norm, formula, arguments):
    arguments = [f32(x) for x in arguments]
    direction = f32(RNG.normal(size=X.shape))

    def gradients(f, **options):
        def total(*arguments):
            return (f(*arguments, **options) * direction).sum()

        return jax.jit(jax.grad(total, tuple(range(len(arguments)))))(*arguments)

    for got, want in zip(gradients(norm, eps=EPS), gradients(formula, sqrt=jnp.sqrt)):
        np.testing.assert_allclose(got, want, atol=1e-5)
    half = arguments[0].astype(jnp.bfloat16)
    gradient = jax.grad(lambda x: norm(x, *arguments[1:], eps=EPS).astype(jnp.float32).sum())(half)
    assert gradient.dtype == jnp.bfloat16
