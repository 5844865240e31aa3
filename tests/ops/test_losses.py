"""The chunked cross entropy against the direct formula in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.ops import losses, target

B, T, D, V = 3, 8, 12, 20
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, T, D)).astype(np.float32)
TABLE = RNG.normal(size=(V, D)).astype(np.float32)
BIAS = RNG.normal(size=V).astype(np.float32)
TARGETS = RNG.integers(0, V, (B, T))
WEIGHTS = (RNG.random((B, T)) * (RNG.random((B, T)) < 0.7)).astype(np.float32)
CASES = {
    "plain": dict(),
    "softcap": dict(softcap=3.0),
    "z loss": dict(z_loss=0.1),
    "label smoothing": dict(label_smoothing=0.2),
    "all": dict(softcap=3.0, z_loss=0.1, label_smoothing=0.2),
}


def naive(hidden, table, bias, *, softcap=None, z_loss=0.0, label_smoothing=0.0, np=np):
    """The definition, with the logits of all tokens."""
    logits = hidden @ table.T + bias
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    log_z = np.log(np.exp(logits).sum(-1))
    log_probs = logits - log_z[..., None]
    wanted = np.eye(V)[TARGETS] * (1 - label_smoothing) + label_smoothing / V
    return ((-(wanted * log_probs).sum(-1) + z_loss * log_z**2) * WEIGHTS).sum()


@functools.partial(jax.jit, static_argnames=("softcap", "z_loss", "label_smoothing"))
def ours(hidden, table, bias, weights=WEIGHTS, **options):
    """Loss, number of correct predictions, and the gradients of a multiple of the loss."""

    def loss(hidden, table, bias):
        sums = losses.token_cross_entropy(hidden, table, TARGETS, weights, bias=bias, **options)
        return 0.5 * sums.loss, sums

    (_, sums), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(hidden, table, bias)
    return sums, gradients


@pytest.fixture(params=[1, 4], ids=["one chunk", "four chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", B * T * V // request.param)
    ours.clear_cache()
    yield request.param
    ours.clear_cache()


@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition_with_its_gradients(case, chunks):
    sums, gradients = ours(HIDDEN, TABLE, BIAS, **CASES[case])
    exact = [x.astype(np.float64) for x in (HIDDEN, TABLE, BIAS)]
    np.testing.assert_allclose(sums.loss, naive(*exact, **CASES[case]), rtol=1e-6)
    definition = functools.partial(naive, np=jnp, **CASES[case])
    want = jax.jit(jax.grad(lambda *x: 0.5 * definition(*x), (0, 1, 2)))(HIDDEN, TABLE, BIAS)
    for got, expected in zip(gradients, want):
        np.testing.assert_allclose(got, expected, atol=3e-6)


def test_chunks_are_as_few_as_fit(monkeypatch):
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", B * T * V // 4)
    text = str(jax.make_jaxpr(ours)(HIDDEN, TABLE, BIAS))
    assert f"f32[{B},{T // 4},{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text


def test_accelerators_get_longer_chunks():
    on_cpu = losses.chunk_count(1024, 16 * 50_304)
    with target.compile_for("gpu"):
        on_gpu = losses.chunk_count(1024, 16 * 50_304)
    assert (on_cpu, on_gpu) == (64, 8)


def test_without_a_bias(chunks):
    sums = losses.token_cross_entropy(HIDDEN, TABLE, TARGETS, WEIGHTS)
    np.testing.assert_allclose(sums.loss, naive(HIDDEN, TABLE, np.zeros(V)), rtol=1e-5)


def test_correct_counts_the_weights_of_right_predictions(chunks):
    sums, _ = ours(HIDDEN, TABLE, BIAS)
    right = (HIDDEN @ TABLE.T + BIAS).argmax(-1) == TARGETS
    np.testing.assert_allclose(sums.correct, (right * WEIGHTS).sum(), rtol=1e-6)
    steered = HIDDEN + 100 * TABLE[TARGETS] * (np.arange(T) < 3)[:, None]
    right = (steered @ TABLE.T + BIAS).argmax(-1) == TARGETS
    assert 0.2 < right.mean() < 0.9
    sums, _ = ours(steered.astype(np.float32), TABLE, BIAS)
    np.testing.assert_allclose(sums.correct, (right * WEIGHTS).sum(), rtol=1e-6)


def test_a_collapsed_model_is_right_nowhere(chunks):
    sums, _ = ours(np.zeros_like(HIDDEN), TABLE, np.zeros_like(BIAS))
    assert float(sums.correct) == 0.0
    np.testing.assert_allclose(sums.loss, np.log(V) * WEIGHTS.sum(), rtol=1e-5)


def test_weights_of_zero_give_zero_and_gradients_of_zero(chunks):
    sums, gradients = ours(HIDDEN * 1e3, TABLE, BIAS, np.zeros_like(WEIGHTS), z_loss=0.1)
    assert float(sums.loss) == 0.0
    assert float(sums.correct) == 0.0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_huge_logits_do_not_overflow():
    sums, gradients = ours(HIDDEN * 1e4, TABLE, BIAS)
    exact = HIDDEN.astype(np.float64) * 1e4 @ TABLE.T + BIAS
    at_target = np.take_along_axis(exact, TARGETS[..., None], -1)[..., 0]
    # log Z becomes the largest logit
    np.testing.assert_allclose(sums.loss, ((exact.max(-1) - at_target) * WEIGHTS).sum(), rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradients)


def test_bfloat16_hidden_states_are_close_and_gradients_keep_their_dtypes(chunks):
    exact, exact_gradients = ours(HIDDEN, TABLE, BIAS)
    got, gradients = ours(HIDDEN.astype(jnp.bfloat16), TABLE, BIAS)
    assert got.loss.dtype == jnp.float32
    np.testing.assert_allclose(got.loss, exact.loss, rtol=0.01)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    for gradient, expected in zip(gradients, exact_gradients):
        error = np.linalg.norm(gradient.astype(np.float32) - expected)
        assert error < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_class_cross_entropy(label_smoothing):
    logits = RNG.normal(size=(5, 3)).astype(np.float32)
    labels, weights = np.array([0, 2, 1, 1, 0]), np.array([1, 1, 0, 0.5, 2], np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact = np.log(exact / exact.sum(-1, keepdims=True))
    wanted = np.eye(3)[labels] * (1 - label_smoothing) + label_smoothing / 3
    got = losses.class_cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
    np.testing.assert_allclose(got, -((wanted * exact).sum(-1) * weights).sum(), rtol=1e-6)


# --- log-probabilities by token ---

LENGTHS = {"equal chunks": 8, "a shorter last chunk": 7}


def dense_log_probs(hidden, table, bias, softcap, targets):
    """The definition, with the logits of all positions."""
    logits = hidden @ table.T + bias
    logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_log_probs_equal_the_dense_formula_with_their_gradients(length, softcap, chunks):
    hidden, targets = HIDDEN[:, :length], TARGETS[:, :length]
    direction = RNG.normal(size=targets.shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(function, *arguments):
        y, back = jax.vjp(function, *arguments)
        return y, *back(direction)

    def ours(hidden, table, bias):
        options = dict(bias=bias, softcap=softcap)
        return losses.per_token_log_probs(hidden, table, targets, **options)

    def dense(hidden, table, bias):
        return dense_log_probs(hidden, table, bias, softcap, targets)

    got = run(ours, hidden, TABLE, BIAS)
    assert got[0].dtype == jnp.float32
    for x, y in zip(got, run(dense, hidden, TABLE, BIAS)):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_log_probs_without_a_bias(chunks):
    got = losses.per_token_log_probs(HIDDEN, TABLE, TARGETS)
    np.testing.assert_allclose(got, dense_log_probs(HIDDEN, TABLE, 0, None, TARGETS), atol=1e-5)


def test_log_probs_never_hold_all_logits(monkeypatch):
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", B * T * V // 4)

    def total(hidden, table):
        return losses.per_token_log_probs(hidden, table, TARGETS).sum()

    text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(HIDDEN, TABLE))
    # neither as one array nor as the stacked residuals of a loop over chunks
    assert f"f32[{B},{T // 4},{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text
    assert f"f32[4,{B},{T // 4},{V}]" not in text


def test_log_probs_have_forward_derivatives(chunks):
    run = lambda hidden: losses.per_token_log_probs(hidden, TABLE, TARGETS)
    dense = lambda hidden: dense_log_probs(hidden, TABLE, 0, None, TARGETS)
    direction = RNG.normal(size=HIDDEN.shape).astype(np.float32)
    got, want = (jax.jvp(f, (HIDDEN,), (direction,))[1] for f in (run, dense))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_log_probs_on_a_mesh_equal_those_on_one_device(monkeypatch):
    rows = 8
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(rows, 7, D)).astype(np.float32)
    targets = rng.integers(0, V, (rows, 7))
    # three positions of the two rows that each batch shard has: chunks of 3, 3 and 1
    monkeypatch.setitem(losses.MAX_LOGITS, "cpu", 2 * 3 * V)

    def run(hidden, table, bias, shards):
        def total(hidden, table, bias):
            y = losses.per_token_log_probs(hidden, table, targets, bias=bias, shards=shards)
            return (y * jnp.arange(7)).sum(), y

        return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(hidden, table, bias)

    want = jax.jit(run, static_argnums=3)(hidden, TABLE, BIAS, 1)
    assert f"f32[{rows},3,{V}]" in str(
        jax.make_jaxpr(run, static_argnums=3)(hidden, TABLE, BIAS, 4)
    )
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    place = lambda x, *dims: jax.device_put(x, jax.NamedSharding(mesh, sharding.spec(*dims)))
    with jax.set_mesh(mesh):
        arguments = (place(hidden, "batch"), place(TABLE, "vocab", "embed"), place(BIAS, "vocab"))
        got = jax.jit(run, static_argnums=3)(*arguments, sharding.batch_shards())
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
