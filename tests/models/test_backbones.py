"""Properties of every architecture, tested on one of each kind."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import DECODERS, ENCODERS, F32, LLAMA, SIZES, STYLES, hidden, jit_hidden, params

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.models.heads import CausalLM

# two documents of 6 and 4 tokens, all tokens different, and a row of 12
A, B = np.arange(1, 7), np.arange(11, 15)
JUNK = np.arange(31, 40)
T = 12
PACKED = np.concatenate([A, B, JUNK[:2]])
PACKED_SEGMENTS = np.repeat([1, 2, 0], [6, 4, 2])
PACKED_POSITIONS = np.concatenate([np.arange(6), np.arange(4), np.arange(2)])


def padded(tokens, padding):
    return np.concatenate([tokens, np.broadcast_to(padding, T)[: T - len(tokens)]])


@pytest.fixture(scope="module", params=STYLES)
def style(request):
    return request.param


@pytest.fixture(scope="module")
def rows(style):
    """Hidden states of: both documents packed, A alone, B alone, A alone with other padding."""
    tokens = np.stack([PACKED, padded(A, 0), padded(B, 0), padded(A, np.resize(JUNK, T))])
    segments = np.stack([PACKED_SEGMENTS, *(np.arange(T) < n for n in (6, 4, 6))]).astype(np.int32)
    positions = np.stack([PACKED_POSITIONS, *[np.arange(T)] * 3])
    inputs = dict(segment_ids=segments, positions=positions)
    x = jit_hidden(STYLES[style], params(style), tokens, **inputs)
    return np.asarray(x), tokens, inputs


def test_hidden_states_are_finite_and_of_the_right_shape(rows):
    x, _, _ = rows
    assert x.shape == (4, T, SIZES["dim"])
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert x.std() > 0.1


def test_a_packed_row_equals_its_documents_in_separate_rows(rows):
    packed, a, b, _ = rows[0]
    np.testing.assert_allclose(packed[:6], a[:6], atol=2e-5)
    np.testing.assert_allclose(packed[6:10], b[:4], atol=2e-5)


def test_padding_changes_nothing_for_real_tokens(rows, style):
    _, a, _, other_padding = rows[0]
    np.testing.assert_array_equal(a[:6], other_padding[:6])
    unpadded = jit_hidden(STYLES[style], params(style), A[None])[0]
    np.testing.assert_allclose(a[:6], unpadded, atol=2e-5)


def influence(config, tree, tokens, **inputs):
    """[T, T]: whether the token at s changes the hidden state at t, by the gradient."""
    direction = np.random.default_rng(0).normal(size=config.dim).astype(np.float32)

    def read(table):
        changed = jax.tree.map(lambda x: x, tree)
        changed["backbone"]["embed"]["token"]["embedding"] = table
        return hidden(config, changed, tokens[None], **inputs)[0] @ direction

    gradients = jax.jit(jax.jacrev(read))(tree["backbone"]["embed"]["token"]["embedding"])
    return np.abs(gradients[:, tokens]).max(-1) > 0


def test_each_token_depends_exactly_on_the_visible_tokens(style):
    inputs = dict(segment_ids=PACKED_SEGMENTS[None], positions=PACKED_POSITIONS[None])
    got = influence(STYLES[style], params(style), PACKED, **inputs)
    expected = PACKED_SEGMENTS[:, None] == PACKED_SEGMENTS
    if style in DECODERS:
        expected &= np.tri(T, dtype=bool)
    np.testing.assert_array_equal(got, expected)


def test_the_receptive_field_is_the_sum_of_the_windows():
    config = DecoderConfig(**LLAMA, window=3)
    got = influence(config, params("llama"), PACKED)
    distance = np.subtract.outer(np.arange(T), np.arange(T))
    np.testing.assert_array_equal(got, (distance >= 0) & (distance <= 2 * 2))


def test_without_segments_a_local_and_a_global_encoder_layer_see_everything():
    assert influence(STYLES["modernbert"], params("modernbert"), PACKED).all()


def test_the_loop_over_layers_equals_the_layers_one_by_one(rows, style):
    x, tokens, inputs = rows
    looped = dataclasses.replace(F32, unroll=1)
    again = jit_hidden(STYLES[style], params(style), tokens, looped, **inputs)
    np.testing.assert_allclose(again, x, atol=1e-5)


def test_bfloat16_is_close_to_float32(rows, style):
    x, tokens, inputs = rows
    half = ComputeConfig(dtype="bfloat16", attention="xla")
    got = jit_hidden(STYLES[style], params(style), tokens, half, **inputs)
    assert got.dtype == jnp.bfloat16
    real = inputs["segment_ids"] > 0
    error = np.linalg.norm(got.astype(np.float32)[real] - x[real]) / np.linalg.norm(x[real])
    assert error < 0.04


# --- what is recomputed in the backward pass ---


@pytest.mark.parametrize(
    ("name", "modes", "rate"),
    [
        ("alternating", ("minimal", "dots", "offload", "attention", "full"), 0.0),
        ("bert", ("full",), 0.2),
    ],
)
def test_recomputing_changes_neither_loss_nor_gradients(name, modes, rate):
    config = dataclasses.replace(STYLES[name], dropout=rate, attention_dropout=rate)
    direction = np.random.default_rng(0).normal(size=(1, T, config.dim)).astype(np.float32)

    def run(remat):
        def loss(tree):
            compute = dataclasses.replace(F32, remat=remat, unroll=1)
            return (
                hidden(config, tree, PACKED[None], compute, key=jax.random.key(3)) * direction
            ).sum()

        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params(name)))

    plain = run("none")
    for remat in modes:
        for got, want in zip(run(remat), plain):
            np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(("remat", "products"), [("none", 6), ("minimal", 6), ("full", 8)])
def test_minimal_keeps_the_products_of_experts(remat, products):
    config = DecoderConfig(**SIZES | dict(num_experts=4))
    model = CausalLM(config, dataclasses.replace(F32, remat=remat, unroll=1))
    tokens = jnp.ones((1, 8), jnp.int32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), tokens)
    gradient = jax.grad(lambda v: model.apply(v, tokens, method="hidden").sum())
    assert str(jax.make_jaxpr(gradient)(abstract)).count("= ragged_dot") == products


def test_recomputing_saves_memory_on_a_cpu_too():
    config = DecoderConfig(**SIZES | dict(num_layers=4, max_len=128))

    def needed(remat):
        model = CausalLM(config, dataclasses.replace(F32, remat=remat))
        abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((4, 128), jnp.int32))
        tokens = jax.ShapeDtypeStruct((4, 128), jnp.int32)
        gradient = jax.grad(lambda v, x: model.apply(v, x, method="hidden").sum())
        return jax.jit(gradient).lower(abstract, tokens).compile().memory_analysis()

    none, full = (needed(remat).temp_size_in_bytes for remat in ("none", "full"))
    assert full < none / 2


# --- dropout ---


@pytest.mark.parametrize("name", [DECODERS[0], ENCODERS[0]])
def test_dropout_is_a_function_of_its_key(name):
    config = dataclasses.replace(STYLES[name], dropout=0.2, attention_dropout=0.2)
    tree = params(name)
    run = jax.jit(lambda key: hidden(config, tree, PACKED[None], key=key))
    first, again, other = (np.asarray(run(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    # without a key there is none
    plain = jit_hidden(STYLES[name], tree, PACKED[None])
    np.testing.assert_array_equal(jit_hidden(config, tree, PACKED[None]), plain)
    assert np.abs(first - plain).max() > 0.1


def test_embeddings_and_every_layer_have_different_dropout_masks():
    config = DecoderConfig(**SIZES, dropout=0.5, extra_norms=())
    # embedding, attention and MLP of both layers give only ones: 5 of them, each kept with probability 1/2
    ones = {"embedding", "out_bias", "down_bias"}
    tree = jax.tree.map_with_path(
        lambda path, x: np.full_like(x, path[-1].key in ones), params("gpt2")
    )
    tokens = np.zeros((8, T), int)
    kept = hidden(config, tree, tokens, key=jax.random.key(0)) * 0.5
    counts = np.bincount(np.asarray(kept).astype(int).ravel(), minlength=6) / kept.size
    np.testing.assert_allclose(counts, np.array([1, 5, 10, 10, 5, 1]) / 32, atol=0.04)
