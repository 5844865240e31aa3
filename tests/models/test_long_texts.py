"""Rotary frequencies that depend on the length of a text: padding, packing, and generation."""

import dataclasses

import jax
import numpy as np
import pytest
from styles import STYLES, hidden, language_model, random_params

from jaxlm.config import RopeScaling
from jaxlm.generation import decode
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings

# compiles many programs
pytestmark = pytest.mark.slow

LONGROPE = RopeScaling(
    kind="longrope",
    factor=2.0,
    original_max_len=8,
    short_factor=(1.0, 1.5, 2.0, 3.0),
    long_factor=(2.0, 3.0, 5.0, 9.0),
)
DYNAMIC = RopeScaling(kind="dynamic", factor=2.0, original_max_len=8)
PLAIN = dataclasses.replace(STYLES["llama"], num_layers=1)
PARAMS = random_params(language_model(PLAIN))
IDS = np.random.default_rng(0).integers(1, 40, (1, 12))


def states(scaling, tokens, **inputs):
    config = dataclasses.replace(PLAIN, rope_scaling=scaling)
    return np.asarray(hidden(config, PARAMS, tokens, **inputs))


@pytest.mark.parametrize("scaling", [LONGROPE, DYNAMIC], ids=lambda x: x.kind)
def test_a_text_is_computed_by_its_own_length(scaling):
    short = states(scaling, IDS[:, :8])
    segments = (np.arange(12) < 8).astype(np.int32)[None]
    padded = states(scaling, IDS, segment_ids=segments)[:, :8]
    np.testing.assert_allclose(padded, short, atol=1e-5)
    # beyond it the whole row changes
    assert np.abs(states(scaling, IDS[:, :9])[:, 1:8] - short[:, 1:]).max() > 1e-3
    if scaling.kind == "dynamic":
        np.testing.assert_allclose(short, states(None, IDS[:, :8]), atol=1e-6)


def greedy(model, params, prompt, count):
    """The most probable tokens, each by a pass over the whole text."""
    logits = jax.jit(lambda tokens: model.apply({"params": params}, tokens, method="with_cache")[0])
    text = list(prompt)
    for _ in range(count):
        text.append(int(logits(np.array([text]))[0, -1].argmax()))
    return text[len(prompt) :]


def test_keys_are_computed_anew_where_longrope_changes_the_frequencies():
    """Texts that pass the 8 tokens, one after another, a prompt that has, and one that is longer than a chunk."""
    config = dataclasses.replace(PLAIN, rope_scaling=LONGROPE, max_len=320)
    assert (config.rope_switch, config.max_cached_len) == (8, 8)
    model, rng = language_model(config), np.random.default_rng(1)
    prompts = [rng.integers(1, 40, n).tolist() for n in (3, 5, 8, 9, 12, 1, 300)]
    engine = Engine(model, PARAMS, slots=3, block=16)
    assert engine.max_len == 320
    settings = Settings(max_new_tokens=9, temperature=0.0)
    written = engine.run([Request(prompt, settings) for prompt in prompts])
    for prompt, tokens in zip(prompts, written, strict=True):
        assert [token.id for token in tokens] == greedy(model, PARAMS, prompt, 9), len(prompt)
        assert [token.reason for token in tokens] == [None] * 8 + ["length"]


def test_what_keeps_its_cache_ends_where_frequencies_change():
    config = dataclasses.replace(PLAIN, rope_scaling=LONGROPE)
    with pytest.raises(ValueError, match="pass the 8 up to which the rotary frequencies"):
        decode.begin(language_model(config), PARAMS, IDS[:, :5], np.array([5]), 4)
    prefix = Engine(language_model(config), PARAMS, slots=1, block=4, is_prefix=True)
    assert prefix.max_len == 8
    model = language_model(dataclasses.replace(PLAIN, rope_scaling=DYNAMIC))
    assert (model.config.rope_switch, model.config.max_cached_len, PLAIN.max_cached_len) == (
        None,
        8,
        16,
    )
    assert Engine(model, PARAMS, slots=1, block=4).max_len == 8
    with pytest.raises(ValueError, match="2 to 8, the length up to which its rotary frequencies"):
        Engine(model, PARAMS, slots=1, block=4, max_len=9)
