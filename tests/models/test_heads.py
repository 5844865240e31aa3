"""Heads: their inputs, and their parameter trees."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import F32, STYLES, jit_hidden, language_model, params, random_params

from jaxlm.config import ComputeConfig
from jaxlm.models import heads
from jaxlm.nn.layers import residual_std
from jaxlm.ops.losses import token_cross_entropy

T = 8
TOKENS = np.random.default_rng(0).integers(1, 40, (2, T))


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model, tree, *args, method=None, **inputs):
    return model.apply({"params": tree}, *args, method=method, **inputs)


# --- language models ---


@pytest.mark.parametrize("style", ["gpt2", "llama", "gemma"])
def test_logits_of_a_decoder_are_hidden_states_times_the_table(style):
    config, tree = STYLES[style], params(style)
    table = heads.unembedding(tree)
    own = tree.get("head", {}).get("unembedding")
    assert (own is None) == config.tie_embeddings
    assert table is (tree["backbone"]["embed"]["token"]["embedding"] if own is None else own)
    want = np.asarray(jit_hidden(config, tree, TOKENS)) @ np.asarray(table).T
    if config.logit_softcap:
        want = config.logit_softcap * np.tanh(want / config.logit_softcap)
    got = apply(language_model(config), tree, TOKENS)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("style", ["bert", "modernbert"])
def test_the_masked_language_model_reads_the_requested_positions(style):
    model, tree = language_model(STYLES[style]), params(style)
    positions = np.array([[1, 6, 6], [0, 3, 7]])
    everywhere = np.asarray(apply(model, tree, TOKENS, method="hidden"))
    there = apply(model, tree, TOKENS, positions, method="hidden")
    np.testing.assert_allclose(
        there, np.take_along_axis(everywhere, positions[..., None], axis=1), atol=1e-5
    )
    want = everywhere @ np.asarray(heads.unembedding(tree)).T
    want = want + np.asarray(heads.unembedding_bias(tree))
    np.testing.assert_allclose(apply(model, tree, TOKENS), want, atol=2e-5)


@pytest.mark.parametrize("style", ["gemma", "bert"])
def test_the_loss_from_hidden_states_is_the_loss_from_logits(style):
    config, tree = STYLES[style], params(style)
    model = language_model(config)
    targets, weights = np.roll(TOKENS, -1, 1), np.ones((2, T), np.float32)
    hidden = apply(model, tree, TOKENS, method="hidden")
    got = token_cross_entropy(
        hidden,
        heads.unembedding(tree),
        targets,
        weights,
        bias=heads.unembedding_bias(tree),
        softcap=config.logit_softcap,
    )
    logits = np.asarray(apply(model, tree, TOKENS), np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    at_target = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(got.loss, (log_z - at_target).sum(), rtol=1e-5)


# --- pooling and classification ---

X = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
VALID = np.array([[True, True, False, False], [True, True, True, True]])


def test_pool():
    np.testing.assert_array_equal(heads.pool(X, VALID, "first"), X[:, 0])
    np.testing.assert_array_equal(heads.pool(X, VALID, "last"), np.stack([X[0, 1], X[1, 3]]))
    want = np.stack([X[0, :2].mean(0), X[1].mean(0)])
    np.testing.assert_allclose(heads.pool(X, VALID, "mean"), want, rtol=1e-6)


def test_pooling_an_empty_text_is_finite():
    nothing = np.zeros((2, 4), bool)
    for pooling in ("first", "last", "mean"):
        assert np.isfinite(heads.pool(X, nothing, pooling)).all()


@pytest.mark.parametrize(
    ("style", "pooling"), [("bert", "first"), ("modernbert", "mean"), ("llama", "last")]
)
def test_a_classifier_ignores_padding(style, pooling):
    model = heads.Classifier(STYLES[style], 3, pooling, compute=F32)
    tree = random_params(model)
    segments = (np.arange(T) < np.array([[5], [8]])).astype(np.int32)
    got = np.asarray(apply(model, tree, TOKENS, segment_ids=segments))
    assert got.shape == (2, 3)
    assert got.dtype == np.float32
    other = np.where(segments > 0, TOKENS, 1 + TOKENS % 30)
    np.testing.assert_array_equal(got, apply(model, tree, other, segment_ids=segments))
    # and not the text
    other = np.where(segments > 0, 1 + TOKENS % 30, TOKENS)
    assert np.abs(got - apply(model, tree, other, segment_ids=segments)).max() > 1e-3


def test_a_classifier_has_dropout_only_with_a_key():
    config = dataclasses.replace(STYLES["bert"], dropout=0.0, attention_dropout=0.0)
    model = heads.Classifier(config, 3, "first", 0.5, F32)
    tree = random_params(model)
    run = functools.partial(apply, model, tree, TOKENS, segment_ids=np.ones_like(TOKENS))
    first = run(key=jax.random.key(1))
    np.testing.assert_array_equal(first, run(key=jax.random.key(1)))
    assert np.abs(first - run(key=jax.random.key(2))).max() > 1e-3
    assert np.abs(first - run()).max() > 1e-3


# --- parameters ---


@pytest.mark.parametrize("style", ["gpt2", "bert"])
def test_initial_parameters_have_the_standard_deviation_of_the_config(style):
    config = dataclasses.replace(STYLES[style], dim=64, mlp_dim=256, vocab_size=512)
    tree = jax.jit(lambda key: heads.init_params(language_model(config), key))(jax.random.key(0))
    assert set(tree) == ({"backbone"} if style == "gpt2" else {"backbone", "head"})
    blocks = tree["backbone"]["stack"]["blocks"]
    assert (blocks["attn_norm"]["scale"] == 1).all()
    assert not blocks["attn"]["query_bias"].any()
    spread = {
        "embedding": (tree["backbone"]["embed"]["token"]["embedding"], config.init_std),
        "query": (blocks["attn"]["query"], config.init_std),
        "up": (blocks["mlp"]["up"], config.init_std),
        "out": (blocks["attn"]["out"], residual_std(config)),
        "down": (blocks["mlp"]["down"], residual_std(config)),
    }
    for name, (x, std) in spread.items():
        assert float(x.std()) == pytest.approx(std, rel=0.05), name
    # every layer its own
    assert not np.array_equal(blocks["mlp"]["up"][0], blocks["mlp"]["up"][1])
    pre_norm = config.norm_place != "post"
    assert residual_std(config) == pytest.approx(0.02 / (4**0.5 if pre_norm else 1))


def test_parameters_do_not_depend_on_how_the_model_runs():
    config = STYLES["llama"]

    def shapes(compute):
        model = heads.CausalLM(config, compute)
        return jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))

    plain = shapes(F32)
    assert {str(x.dtype) for x in jax.tree.leaves(plain)} == {"float32"}
    for compute in (
        ComputeConfig(dtype="bfloat16", remat="full", unroll=1),
        ComputeConfig(attention="splash"),
        ComputeConfig(attention="cudnn"),
    ):
        assert shapes(compute) == plain
