"""The encoder-decoder: dependencies of target tokens, packing on both sides, and decoding with a cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import ENCODER_DECODERS, F32, SIZES, language_model, params

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
    t5_style,
)
from jaxlm.models.decoder import empty_cache
from jaxlm.models.heads import init_params, unembedding, unembedding_bias
from jaxlm.ops.losses import token_cross_entropy

STYLES = list(ENCODER_DECODERS)
LOOP = dataclasses.replace(F32, unroll=1)

# two pairs of texts, 5 + 3 tokens and 4 + 4, all tokens different, in rows of 10 and 9
SOURCES, TARGETS = (np.arange(1, 6), np.arange(6, 10)), (np.arange(11, 14), np.arange(14, 18))
S, T = 10, 9
SOURCE_SEGMENTS, TARGET_SEGMENTS = np.repeat([1, 2, 0], [5, 4, 1]), np.repeat([1, 2, 0], [3, 4, 2])


def row(*texts, length, padding):
    """Tokens, segments and positions of a row with these texts."""
    rest = length - sum(map(len, texts))
    tokens = np.concatenate([*texts, np.full(rest, padding)])
    segments = np.concatenate(
        [np.full(len(x), i + 1) for i, x in enumerate(texts)] + [np.zeros(rest)]
    )
    positions = np.concatenate([np.arange(len(x)) for x in (*texts, np.zeros(rest))])
    return tokens, segments.astype(np.int32), positions


def batch(*pairs_of_rows):
    """Arguments of the model from (source row, target row) for each row."""
    source, target = ([np.stack(x) for x in zip(*rows)] for rows in zip(*pairs_of_rows))
    return (source[0], target[0]), dict(
        segment_ids=source[1],
        positions=source[2],
        decoder_segment_ids=target[1],
        decoder_positions=target[2],
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("compute", "method"))
def apply(config, tree, *args, compute=LOOP, method=None, **inputs):
    model = language_model(config, compute)
    return model.apply({"params": tree}, *args, method=method, **inputs)


@functools.cache
def logits_of_rows(style):
    """Logits of: both pairs packed, the first alone, the second alone, the first alone with other padding."""
    tokens, inputs = batch(
        (row(*SOURCES, length=S, padding=0), row(*TARGETS, length=T, padding=0)),
        (row(SOURCES[0], length=S, padding=0), row(TARGETS[0], length=T, padding=0)),
        (row(SOURCES[1], length=S, padding=0), row(TARGETS[1], length=T, padding=0)),
        (row(SOURCES[0], length=S, padding=33), row(TARGETS[0], length=T, padding=34)),
    )
    logits = apply(ENCODER_DECODERS[style], params(style), *tokens, **inputs)
    return np.asarray(logits), tokens, inputs


@pytest.fixture(params=STYLES)
def rows(request):
    """See `logits_of_rows`."""
    return logits_of_rows(request.param)


def test_a_packed_row_equals_its_pairs_in_separate_rows(rows):
    packed, first, second, _ = rows[0]
    assert packed.shape == (T, SIZES["vocab_size"])
    assert packed[:7].std() > 0.1
    np.testing.assert_allclose(packed[:3], first[:3], atol=2e-5)
    np.testing.assert_allclose(packed[3:7], second[:4], atol=2e-5)


def test_padding_on_either_side_changes_nothing(rows):
    _, first, _, other = rows[0]
    np.testing.assert_array_equal(first[:3], other[:3])


def test_a_target_token_sees_its_source_and_the_target_before_it():
    config, tree = ENCODER_DECODERS["t5"], params("t5")
    tokens, inputs = batch(
        (row(*SOURCES, length=S, padding=18), row(*TARGETS, length=T, padding=19))
    )
    direction = np.random.default_rng(0).normal(size=config.dim).astype(np.float32)

    def read(table):
        changed = jax.tree.map(lambda x: x, tree)
        changed["backbone"]["embed"]["token"]["embedding"] = table
        return apply(config, changed, *tokens, method="hidden", **inputs)[0] @ direction

    gradients = jax.jit(jax.jacrev(read))(tree["backbone"]["embed"]["token"]["embedding"])
    got = np.abs(gradients[:, np.concatenate([tokens[0][0], tokens[1][0]])]).max(-1) > 0
    of_source = TARGET_SEGMENTS[:, None] == SOURCE_SEGMENTS
    of_target = (TARGET_SEGMENTS[:, None] == TARGET_SEGMENTS) & np.tri(T, dtype=bool)
    real = TARGET_SEGMENTS > 0
    np.testing.assert_array_equal(got[real], np.concatenate([of_source, of_target], 1)[real])


@pytest.mark.parametrize("style", STYLES)
def test_decoding_with_a_cache_equals_the_full_pass(style):
    config, tree = ENCODER_DECODERS[style], params(style)
    rng = np.random.default_rng(0)
    source, target = rng.integers(1, 40, (2, S)), rng.integers(1, 40, (2, 7))
    segments = (np.arange(S) < np.array([[S], [6]])).astype(np.int32)
    want = np.asarray(apply(config, tree, source, target, segment_ids=segments))

    # prompts of 3 and 1 tokens, the second padded
    lengths = np.array([3, 1])
    prompt = np.where(np.arange(3) < lengths[:, None], target[:, :3], 39)
    memory = apply(config, tree, source, segment_ids=segments, method="encode")
    step = functools.partial(apply, config, tree, method="with_cache", memory_segment_ids=segments)
    cache = empty_cache(config.decoder, 2, 8, F32)
    positions = np.broadcast_to(np.arange(3), (2, 3))
    got, cache = step(prompt, positions=positions, cache=cache, memory=memory)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(got[i, :length], want[i, :length], atol=5e-5)
    kept = [layer.memory for layer in cache]
    assert kept[0].key.shape == (2, config.num_heads, S, config.head_width)
    for i in range(4):
        at = (lengths + i)[:, None]
        tokens = np.take_along_axis(target, at, axis=1)
        got, cache = step(tokens, positions=at, cache=cache)
        expected = np.take_along_axis(want, at[..., None], axis=1)[:, 0]
        np.testing.assert_allclose(got[:, 0], expected, atol=5e-5)
    # the source's keys and values were worked out once
    jax.tree.map(np.testing.assert_array_equal, [layer.memory for layer in cache], kept)


@pytest.mark.parametrize("rows", ["t5"], indirect=True)
def test_the_layers_one_by_one_equal_the_loop(rows):
    logits, tokens, inputs = rows
    again = apply(ENCODER_DECODERS["t5"], params("t5"), *tokens, compute=F32, **inputs)
    np.testing.assert_allclose(again, logits, atol=1e-5)


@pytest.mark.parametrize("rows", ["bart"], indirect=True)
def test_the_loss_from_hidden_states_is_the_loss_from_logits(rows):
    logits, tokens, inputs = rows
    config, tree = ENCODER_DECODERS["bart"], params("bart")
    hidden = apply(config, tree, *tokens, method="hidden", **inputs)
    targets = np.roll(tokens[1], -1, 1)
    weights = (inputs["decoder_segment_ids"] > 0).astype(np.float32)
    got = token_cross_entropy(
        hidden, unembedding(tree), targets, weights, bias=unembedding_bias(tree)
    )
    losses = (
        jax.nn.logsumexp(logits, -1) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    )
    np.testing.assert_allclose(got.loss, (losses * weights).sum(), rtol=1e-5)


def test_dropout_is_on_both_sides_and_a_function_of_its_key():
    config = dataclasses.replace(ENCODER_DECODERS["bart"], dropout=0.3, attention_dropout=0.3)
    model, tree = language_model(config, LOOP), {"params": params("bart")}
    source, target = np.arange(1, 5)[None], np.arange(5, 8)[None]

    @jax.jit
    def run(key):
        memory = model.apply(tree, source, key=key, method="encode")
        plain = model.apply(tree, source, method="encode")
        own, _ = model.apply(tree, target, memory=plain, key=key, method="with_cache")
        none, _ = model.apply(tree, target, memory=plain, method="with_cache")
        return memory - plain, own - none

    first, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for a, b in zip(first, other):
        assert np.abs(a).max() > 0.1
        assert np.abs(a - b).max() > 0.1


# --- configuration ---


def test_encoder_and_decoder_share_everything_but_their_depth():
    config = EncoderDecoderConfig(**SIZES, num_decoder_layers=5, window=4)
    assert isinstance(config.encoder, EncoderConfig)
    assert isinstance(config.decoder, DecoderConfig)
    assert (config.encoder.num_layers, config.decoder.num_layers) == (2, 5)
    assert EncoderDecoderConfig(**SIZES).decoder.num_layers == 2
    for field in dataclasses.fields(TransformerConfig):
        if field.name != "num_layers":
            value = getattr(config, field.name)
            assert getattr(config.encoder, field.name) == value, field.name
            assert getattr(config.decoder, field.name) == value, field.name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_decoder_layers=0), "num_decoder_layers=0 must be at least 1"),
        (dict(parallel_block=True, norm_place="pre"), "parallel_block does not support"),
        (dict(positions="rotary", position_offset=2), "position_offset=2 has no effect"),
        (dict(position_offset=-1), "position_offset=-1 must not be negative"),
        (dict(relative_buckets=3), "relative_buckets=3 must be at least 4"),
        (dict(relative_max_distance=16), "relative_max_distance=16"),
    ],
)
def test_a_wrong_config_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as e:
        EncoderDecoderConfig(**wrong)
    assert "\n" not in str(e.value)


def test_relative_positions_name_the_attention_that_does_not_support_them():
    config = EncoderDecoderConfig(**SIZES, **t5_style())
    tokens = jnp.zeros((1, 128), jnp.int32)

    def run(attention):
        model = language_model(config, ComputeConfig(dtype="float32", attention=attention))
        tree = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        return jax.eval_shape(lambda p: model.apply({"params": p}, tokens, tokens), tree)

    with pytest.raises(
        ValueError, match="splash does not support a bias on the scores; use auto or xla"
    ):
        run("splash")
    assert run("auto").shape == (1, 128, SIZES["vocab_size"])
