"""The implementations tuned for CPUs, against the plain formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import attention, cpu, masks, norms, target
from jaxlm.ops.activations import ACTIVATIONS
from jaxlm.ops.linear import linear

B, N, K, H = 2, 4, 2, 8
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def attend(q, k, v, bias):
    mask = masks.Mask(causal=True, window=5)
    options = dict(softcap=3.0, dropout=0.2, key=jax.random.key(1))
    return attention.attend(q, k, v, mask, bias=bias, implementation="xla", **options)


FUNCTIONS = {
    "linear": (linear, [normal(3, 5, 4), normal(4, 2, 3), normal(2, 3)]),
    "linear over two dims": (functools.partial(linear, dims=2), [normal(3, 4, 2), normal(4, 2, 3)]),
    "layer norm": (
        functools.partial(norms.layer_norm, eps=1e-6),
        [normal(3, 8), normal(8), normal(8)],
    ),
    "rms norm": (functools.partial(norms.rms_norm, eps=1e-6), [normal(3, 8), normal(8)]),
    **{name: (function, [normal(3, 8)]) for name, function in ACTIVATIONS.items()},
    "attention": (
        attend,
        [normal(B, 6, N, H), normal(B, 6, K, H), normal(B, 6, K, H), normal(1, N, 6, 6)],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_equal_those_of_the_plain_formula(name):
    function, arguments = FUNCTIONS[name]
    direction = normal(*jax.eval_shape(function, *arguments).shape)

    @jax.jit
    def run(*arguments):
        y, back = jax.vjp(function, *arguments)
        return y, back(direction)

    tuned = run(*arguments)
    with target.plain_formulas():
        plain = run(*arguments)
    for got, want in zip(jax.tree.leaves(tuned), jax.tree.leaves(plain)):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_plain_formulas_have_every_derivative(name):
    """Forward mode against reverse mode, forward over reverse against reverse over reverse."""
    function, arguments = FUNCTIONS[name]
    tangents = [normal(*x.shape) for x in arguments]
    total = lambda *arguments: jnp.sum(jnp.sin(function(*arguments)))
    every = tuple(range(len(arguments)))
    dot = lambda xs, ys: sum(jnp.vdot(x, y) for x, y in zip(xs, ys))

    @jax.jit
    def run(*arguments):
        gradient = jax.grad(total, every)
        first = jax.jvp(total, arguments, tuple(tangents))[1], dot(gradient(*arguments), tangents)
        forward = jax.jvp(gradient, arguments, tuple(tangents))[1]
        reverse = jax.grad(lambda *x: dot(gradient(*x), tangents), every)(*arguments)
        return first, forward, reverse

    with target.plain_formulas():
        first, forward, reverse = run(*arguments)
    np.testing.assert_allclose(*first, rtol=1e-5, atol=1e-5)
    for got, want in zip(forward, reverse):
        np.testing.assert_allclose(got, want, atol=2e-5)


# --- linear layer ---


def test_sums_over_rows_have_the_requested_dtype():
    # sixteen bits would round the sum to 256
    x, d_y = jnp.ones((257, 3), jnp.bfloat16), jnp.ones((257, 2), jnp.bfloat16)
    assert cpu.sum_over_rows(x, d_y).dtype == jnp.bfloat16
    got = cpu.sum_over_rows(x, d_y, jnp.float32)
    np.testing.assert_array_equal(got, np.full((3, 2), 257.0))


# --- attention ---


@pytest.mark.parametrize("length", [64, 101, 128])
def test_causal_blocks_of_queries_change_nothing(length):
    rng = np.random.default_rng(1)
    shapes = ((B, length, N, H), (B, length, K, H), (B, length, K, H))
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in shapes)
    ids = jnp.asarray(np.sort(rng.integers(1, 4, (B, length)), axis=1))
    bias, direction = (
        rng.normal(size=s).astype(np.float32) for s in ((1, N, length, length), q.shape)
    )
    rule = masks.Mask(causal=True, q_segment_ids=ids, kv_segment_ids=ids)
    dense = masks.matrix(rule, length, length)
    assert cpu.causal_blocks(rule, length, length) == length // 32

    @jax.jit
    def run(mask, q, k, v, bias):
        loss = lambda *args: (attention.attend(*args[:3], mask, bias=args[3]) * direction).sum()
        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(q, k, v, bias)

    whole = jax.tree.leaves(run(masks.Mask(dense=dense), q, k, v, bias))
    for mask in (rule, masks.Mask(dense=dense, causal=True)):
        for got, want in zip(jax.tree.leaves(run(mask, q, k, v, bias)), whole):
            np.testing.assert_allclose(got, want, atol=2e-5)


def test_causal_blocks_are_for_whole_sequences():
    causal = masks.Mask(causal=True)
    assert cpu.causal_blocks(causal, 1024, 1024) == 4
    assert cpu.causal_blocks(causal, 63, 63) == 1
    assert cpu.causal_blocks(causal, 64, 128) == 1
    assert cpu.causal_blocks(masks.Mask(), 128, 128) == 1
    cached = masks.Mask(causal=True, q_positions=jnp.zeros((1, 128), int))
    prefixed = masks.Mask(causal=True, kv_prefix=jnp.zeros((1, 128), bool))
    assert {cpu.causal_blocks(m, 128, 128) for m in (cached, prefixed)} == {1}
