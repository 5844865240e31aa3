"""Decoding with a cache, in chunks, against the full forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import DECODERS, F32, STYLES, language_model, params

from jaxlm.config import ComputeConfig
from jaxlm.models.decoder import Decoder, empty_cache

T = 10
TOKENS = np.random.default_rng(0).integers(1, 40, (2, T))
# real tokens of each row at the start; row 1's prompt is padded on the right
PROMPT = np.array([5, 2])


@functools.partial(jax.jit, static_argnums=0)
def full(config, tree, tokens):
    return language_model(config).apply({"params": tree}, tokens)


@functools.partial(jax.jit, static_argnums=0)
def step(config, tree, tokens, positions, cache):
    model = language_model(config)
    inputs = dict(positions=positions, cache=cache)
    return model.apply({"params": tree}, tokens, method="with_cache", **inputs)


@pytest.mark.parametrize("style", DECODERS)
def test_decoding_token_by_token_equals_the_full_pass(style):
    config, tree = STYLES[style], params(style)
    want = np.asarray(full(config, tree, TOKENS))
    prompt = np.where(np.arange(5) < PROMPT[:, None], TOKENS[:, :5], 39)
    positions = np.broadcast_to(np.arange(5), (2, 5))
    got, cache = step(config, tree, prompt, positions, empty_cache(config, 2, 12, F32))
    for row, length in enumerate(PROMPT):
        np.testing.assert_allclose(got[row, :length], want[row, :length], atol=5e-5)
    # each row continues after its own length, overwriting the padding in the cache
    for i in range(5):
        at = (PROMPT + i)[:, None]
        tokens = np.take_along_axis(TOKENS, at, axis=1)
        got, cache = step(config, tree, tokens, at, cache)
        np.testing.assert_allclose(
            got[:, 0], np.take_along_axis(want, at[..., None], axis=1)[:, 0], atol=5e-5
        )


def test_a_prompt_in_chunks_equals_the_whole_prompt():
    config, tree = STYLES["alternating"], params("alternating")
    cache = empty_cache(config, 2, T, F32)
    pieces = []
    for start in (0, 5):
        positions = np.broadcast_to(np.arange(start, start + 5), (2, 5))
        got, cache = step(config, tree, TOKENS[:, start : start + 5], positions, cache)
        pieces.append(got)
    np.testing.assert_allclose(
        np.concatenate(pieces, axis=1), full(config, tree, TOKENS), atol=5e-5
    )


def test_the_cache_has_room_for_each_layer_and_key_head():
    config = STYLES["gemma"]
    cache = empty_cache(config, 3, 7, ComputeConfig(dtype="bfloat16"))
    assert len(cache) == config.num_layers
    for layer in cache:
        assert layer.key.shape == layer.value.shape == (3, 2, 7, 16)
        assert layer.key.dtype == jnp.bfloat16
        assert not layer.key.any()


def test_without_a_cache_none_is_returned():
    config = STYLES["gpt2"]
    _, cache = jax.eval_shape(
        lambda tree: Decoder(config, F32).apply({"params": tree}, TOKENS),
        params("gpt2")["backbone"],
    )
    assert cache is None


def test_a_prefix_is_read_in_both_directions_and_the_rest_is_causal():
    config, tree = STYLES["llama"], params("llama")
    prefix = np.broadcast_to(np.arange(T) < 4, (2, T))

    @jax.jit
    def states(tokens):
        return Decoder(config, F32).apply({"params": tree["backbone"]}, tokens, prefix=prefix)[0]

    def changed(place):
        other = TOKENS.copy()
        other[:, place] = 39 - other[:, place]
        return np.abs(states(other) - states(TOKENS)).max(axis=(0, 2)) > 1e-6

    assert changed(3).all()  # the end of the prefix: even the first token sees it
    np.testing.assert_array_equal(changed(4), np.arange(T) >= 4)
