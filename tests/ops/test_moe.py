"""The mixture of experts against a loop over tokens, and its load-balancing loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import grouped, moe, target

M, E, C, D, F = 7, 4, 2, 6, 5
RNG = np.random.default_rng(0)
X, LOGITS = RNG.normal(size=(M, D)), RNG.normal(size=(M, E))
GATE, UP = RNG.normal(size=(2, E, D, F))
DOWN = RNG.normal(size=(E, F, D))


def silu(x):
    return x / (1 + np.exp(-x))


def reference(x, logits):
    """The definition, token by token, in float64."""
    rows = []
    for token, scores in zip(x, logits):
        best = np.argsort(-scores)[:C]
        weights = np.exp(scores[best]) / np.exp(scores[best]).sum()
        outputs = [silu(token @ GATE[e]) * (token @ UP[e]) @ DOWN[e] for e in best]
        rows.append(sum(w * y for w, y in zip(weights, outputs)))
    return np.stack(rows)


def run(x, logits):
    weights, experts = moe.route(logits, C)
    return moe.mix(x, weights, experts, GATE, UP, DOWN, lambda gate, up: jax.nn.silu(gate) * up)


def test_moe_equals_a_loop_over_tokens():
    got = run(jnp.asarray(X, jnp.float32), jnp.asarray(LOGITS, jnp.float32))
    np.testing.assert_allclose(got, reference(X, LOGITS), rtol=2e-4, atol=2e-4)


def test_no_token_is_dropped_when_all_choose_the_same_expert():
    logits = np.tile([5.0, 4.0, -3.0, -4.0], (M, 1))
    got = run(jnp.asarray(X, jnp.float32), jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(got, reference(X, logits), rtol=2e-4, atol=2e-4)


def test_the_sum_over_devices_with_some_of_the_experts_each_is_that_of_all():
    x, logits = jnp.asarray(X, jnp.float32), jnp.asarray(LOGITS, jnp.float32)
    weights, experts = moe.route(logits, C)

    def part(first, count, x):
        own = (kernel[first : first + count] for kernel in (GATE, UP, DOWN))
        activation = lambda gate, up: jax.nn.silu(gate) * up
        return moe.mix(x, weights, experts, *own, activation, first=jnp.int32(first))

    for sizes in ((1, 3), (2, 2)):
        got = part(0, sizes[0], x) + part(*sizes, x)
        np.testing.assert_allclose(got, reference(X, LOGITS), rtol=2e-4, atol=2e-4)
    both = jax.grad(lambda x: ((part(0, 1, x) + part(1, 3, x)) ** 2).sum())(x)
    np.testing.assert_allclose(both, jax.grad(lambda x: (run(x, logits) ** 2).sum())(x), rtol=1e-4)


def test_gradients_equal_finite_differences():
    direction = RNG.normal(size=(M, D))

    def value(x, logits):
        return (run(x, logits) * direction).sum()

    x, logits = jnp.asarray(X, jnp.float32), jnp.asarray(LOGITS, jnp.float32)
    d_x, d_logits = jax.grad(value, argnums=(0, 1))(x, logits)
    step = 1e-5
    for gradient, at in ((d_x, 0), (d_logits, 1)):
        arrays = [X.copy(), LOGITS.copy()]
        arrays[at][2, 1] += step
        up = (reference(*arrays) * direction).sum()
        arrays[at][2, 1] -= 2 * step
        down = (reference(*arrays) * direction).sum()
        np.testing.assert_allclose(gradient[2, 1], (up - down) / (2 * step), rtol=2e-3)


@pytest.mark.slow
def test_the_kernel_for_tpus_equals_the_plain_product():
    # a group without rows, rows behind the last group, widths of more than one tile
    sizes = jnp.asarray([130, 0, 200, 40], jnp.int32)
    rows = RNG.normal(size=(400, 256)).astype(np.float32)
    kernels = RNG.normal(size=(4, 256, 384)).astype(np.float32)
    weights = RNG.normal(size=(400, 384)) * (np.arange(400) < 370)[:, None]

    def of(product):
        def run(rows, kernels):
            y = jnp.where(weights == 0, 0, product(rows, kernels, sizes))
            return (y * weights).sum(), y

        return jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))(rows, kernels)

    (got, got_y), (want, want_y) = (
        of(p)
        for p in (functools.partial(grouped.megablox, interpret=True), grouped.grouped_product)
    )
    np.testing.assert_allclose(got_y, want_y, atol=1e-4)
    np.testing.assert_allclose(got[0][:370], want[0][:370], atol=1e-4)
    np.testing.assert_allclose(got[1], want[1], atol=1e-4)


def test_the_balancing_loss_is_minimal_for_an_even_load():
    even = jnp.asarray(np.eye(4)[[0, 1, 2, 3]] * 3.0)
    choices = jnp.asarray([[0], [1], [2], [3]])
    np.testing.assert_allclose(moe.load_balance(even, choices), 1.0, rtol=1e-6)
    one = jnp.asarray([[30.0, 0, 0, 0]] * 4)
    np.testing.assert_allclose(moe.load_balance(one, jnp.zeros((4, 1), int)), 4.0, rtol=1e-5)


def test_padding_is_not_balanced():
    logits, choices = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(np.argsort(-LOGITS)[:, :C])
    padded = jnp.concatenate([logits, jnp.tile(jnp.asarray([[9.0, 0, 0, 0]]), (20, 1))])
    chosen = jnp.concatenate([choices, jnp.tile(jnp.asarray([[0, 1]]), (20, 1))])
    real = jnp.arange(M + 20) < M
    plain = moe.load_balance(logits, choices)
    np.testing.assert_allclose(moe.load_balance(padded, chosen, real), plain, rtol=1e-6)
    np.testing.assert_allclose(moe.load_balance(logits, choices, jnp.ones(M, bool)), plain, 1e-6)
    assert moe.load_balance(padded, chosen) > 1.2 * plain
    assert moe.load_balance(logits, choices, jnp.zeros(M, bool)) == 0


def test_the_router_learns_with_one_expert_a_token():
    logits, outputs = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(RNG.normal(size=(M, E)))

    def value(logits, weights):
        weights, experts = moe.route(logits, 1, weights)
        return (weights * jnp.take_along_axis(outputs, experts, 1)).sum()

    # weights as in transformers, where a probability divided by itself is 1; gradients as in Switch
    assert bool(jnp.all(moe.route(logits, 1)[0] == 1))
    selected, switch = (jax.grad(value)(logits, weights) for weights in ("selected", "all"))
    np.testing.assert_allclose(selected, switch, rtol=1e-5)
    assert bool(jnp.all(jnp.abs(selected).max(1) > 1e-3))


def test_the_product_of_the_router_is_exact_on_accelerators():
    x, router = jnp.zeros((M, D), jnp.bfloat16), jnp.zeros((D, E))

    def of(platform):
        with target.compile_for(platform):
            gradients = jax.grad(lambda *a: moe.router_logits(*a).sum(), argnums=(0, 1))
            return str(jax.make_jaxpr(gradients)(x, router))

    for platform in ("gpu", "tpu"):
        text = of(platform)
        assert text.count("dot_general") == text.count("precision=(Precision.HIGHEST") > 0
    assert moe.router_logits(x, router).dtype == jnp.float32


def test_an_auxiliary_loss_changes_gradients_but_not_values():
    def value(w, own):
        y = 2.0 * w
        return moe.with_loss(y, own * w**2) * 5.0 if own else y * 5.0

    assert value(3.0, 0.5) == value(3.0, 0.0)
    plain, with_own = (float(jax.grad(value)(3.0, own)) for own in (0.0, 0.5))
    assert with_own - plain == 0.5 * 2 * 3.0
