"""Rotary frequencies that depend on the length of a text: padding, packing, and generation."""

import dataclasses

import numpy as np
import pytest
from styles import STYLES, hidden, language_model, random_params

from jaxlm.config import RopeScaling
from jaxlm.generation import decode
from jaxlm.generation.engine import Engine

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


def test_text_is_written_up_to_the_length_at_which_frequencies_change():
    config = dataclasses.replace(PLAIN, rope_scaling=LONGROPE)
    assert (config.max_cached_len, PLAIN.max_cached_len) == (8, 16)
    model = language_model(config)
    assert Engine(model, PARAMS, slots=1, block=4).max_len == 8
    with pytest.raises(ValueError, match="2 to 8, the length up to which its rotary frequencies"):
        Engine(model, PARAMS, slots=1, block=4, max_len=9)
    with pytest.raises(ValueError, match="pass the 8 up to which the rotary frequencies"):
        decode.begin(model, PARAMS, IDS[:, :5], np.array([5]), 4)
