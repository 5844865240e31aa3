"""Products with 8-bit operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import CausalLM, ComputeConfig, DecoderConfig, init_params, llama_style
from jaxlm.ops import quantized
from jaxlm.ops.linear import LowRank
from jaxlm.ops.linear import linear as full

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 2, 16)).astype(np.float32)
KERNEL = RNG.normal(size=(2, 16, 4, 6)).astype(np.float32)
BIAS = RNG.normal(size=(4, 6)).astype(np.float32)
# relative to the root mean square of the result: 7 bits of each operand, or 3
NOISE = {"int8": 0.01, "fp8": 0.05}


def distance(got, want):
    return float(np.sqrt(((got - want) ** 2).mean() / (want**2).mean()))


@pytest.mark.parametrize("kind", NOISE)
def test_products_and_gradients_are_those_of_full_ones_up_to_rounding(kind):
    weights = RNG.normal(size=(3, 5, 4, 6)).astype(np.float32)

    def loss(product):
        return lambda x, k, b: (product(x, k, b, dims=2) * weights).sum()

    own = lambda *args, **options: quantized.linear(*args, **options, kind=kind)
    assert 0 < distance(own(X, KERNEL, BIAS, dims=2), full(X, KERNEL, BIAS, dims=2)) < NOISE[kind]
    got = jax.jit(jax.grad(loss(own), argnums=(0, 1, 2)))(X, KERNEL, BIAS)
    want = jax.jit(jax.grad(loss(full), argnums=(0, 1, 2)))(X, KERNEL, BIAS)
    # e5m2 has a bit less
    assert 0 < distance(got[0], want[0]) < 2 * NOISE[kind]
    # those of parameters are not quantised
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-5)


def test_int8_is_exact_where_the_numbers_are():
    x = RNG.integers(-127, 128, (4, 8)).astype(np.float32)
    kernel = RNG.integers(-127, 128, (8, 3)).astype(np.float32)
    # so that the scale is 1 for each row and column
    x[:, 0], kernel[1] = 127, 127
    got = quantized.linear(x, kernel, kind="int8")
    np.testing.assert_array_equal(got, x @ kernel)
    # each row and column has a scale of its own
    scales = np.float32([1e-6, 1, 1e3, 1e9])[:, None]
    np.testing.assert_allclose(
        quantized.linear(x * scales, kernel, kind="int8"), x @ kernel * scales, rtol=1e-6
    )


def test_operands_have_eight_bits():
    text = lambda kind: str(
        jax.make_jaxpr(jax.grad(lambda x: quantized.linear(x, KERNEL[0], kind=kind).sum()))(X)
    )
    assert text("int8").count("i8[") >= 4
    assert "f8_e4m3fn" in text("fp8")
    assert "f8_e5m2" in text("fp8")


@pytest.mark.parametrize("kind", NOISE)
def test_rows_of_zeros_and_low_precision_inputs(kind):
    x = jnp.zeros((2, 8), jnp.bfloat16).at[0].set(1.0)
    y = quantized.linear(x, np.ones((8, 3), np.float32), kind=kind)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), [[8] * 3, [0] * 3])


def test_the_products_of_an_adapter_keep_their_dtype():
    a, b = RNG.normal(size=(16, 2)), RNG.normal(size=(2, 6))
    low = LowRank(KERNEL[0, :, 0], *(np.float32(m) for m in (a, b)), np.float32(2.0))
    x = X[0, :, 0]
    got = quantized.linear(x, low, kind="int8")
    want = quantized.linear(x, low.kernel, kind="int8") + 2 * (x @ a) @ b
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_the_matrices_of_blocks_are_quantised_and_no_others():
    config = DecoderConfig(
        **llama_style(), vocab_size=32, dim=16, num_layers=1, num_heads=2, mlp_dim=24
    )
    tokens = np.arange(12)[None]
    plain = CausalLM(config, ComputeConfig(dtype="float32"))
    params = init_params(plain, jax.random.key(0))
    run = lambda model: model.apply({"params": params}, tokens)
    own = CausalLM(config, ComputeConfig(dtype="float32", quantize="int8"))
    text = str(jax.make_jaxpr(lambda: run(own))())
    products = [line for line in text.splitlines() if "dot_general" in line and ":i32[" in line]
    assert len(products) == 7
    assert 0 < distance(run(own), run(plain)) < 0.05
