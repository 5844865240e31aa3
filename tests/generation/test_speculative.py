"""Speculative decoding writes what the model writes alone."""

import dataclasses
import functools

import numpy as np
import pytest
from styles import STYLES, language_model, random_params

from jaxlm.generation import speculative, weights
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings

CONFIG = dataclasses.replace(STYLES["alternating"], num_layers=2, max_len=64)
MODEL = language_model(CONFIG)
SMALL = language_model(dataclasses.replace(CONFIG, num_layers=1, layer_pattern=("global",)))
PROMPT = [5, 9, 5, 9, 5, 3, 9, 5]


@functools.cache
def params(name):
    model = {"own": MODEL, "small": SMALL}[name]
    return weights.by_layer(random_params(model))


def drafts():
    return {
        "own": speculative.DraftModel(MODEL, params("own")),
        "small": speculative.DraftModel(SMALL, params("small")),
        "look-up": speculative.LookUp(),
    }


def write(draft, settings, prompt=PROMPT, **options):
    request = Request(prompt, settings)
    return list(
        speculative.generate(MODEL, params("own"), request, draft, vocab_size=40, **options)
    )


@pytest.mark.parametrize("name", [pytest.param("own", marks=pytest.mark.slow), "small", "look-up"])
def test_greedy_text_is_the_models_own(name):
    settings = Settings(max_new_tokens=15, temperature=0.0, suppress=(7,))
    engine = Engine(MODEL, params("own"), slots=1, block=64)
    for prompt in (PROMPT, [4]):
        (want,) = engine.run([Request(prompt, settings)])
        assert write(drafts()[name], settings, prompt) == [token.id for token in want]
    end = want[3].id
    stopped = write(drafts()[name], dataclasses.replace(settings, stop_ids=(end,)), prompt)
    assert stopped == [token.id for token in want][: [t.id for t in want].index(end) + 1]


@pytest.mark.slow
def test_sampled_text_has_the_models_distribution():
    settings = Settings(max_new_tokens=2, temperature=0.7, top_k=4)
    engine = Engine(MODEL, params("own"), slots=16, block=64)
    seeds = [dataclasses.replace(settings, seed=i) for i in range(400)]
    want = [[t.id for t in tokens] for tokens in engine.run([Request(PROMPT, s) for s in seeds])]
    got = [write(drafts()["small"], each, lookahead=1) for each in seeds]
    for index in range(2):
        counts = [
            np.bincount([x[index] for x in texts], minlength=40) / 400 for texts in (got, want)
        ]
        # four standard deviations of a difference
        np.testing.assert_allclose(*counts, atol=4 * (0.5 / 400) ** 0.5)


@pytest.mark.parametrize(
    ("settings", "prompt", "message"),
    [
        (Settings(repetition_penalty=1.2), PROMPT, "does not support repetition_penalty"),
        (Settings(logprobs=1), PROMPT, "does not support logprobs"),
        (Settings(), [], "0 tokens; 1 to 63"),
        (Settings(), [1] * 64, "64 tokens; 1 to 63"),
    ],
)
def test_what_is_not_supported_is_refused(settings, prompt, message):
    with pytest.raises(ValueError, match=message):
        write(speculative.LookUp(), settings, prompt)


def test_a_draft_with_fewer_tokens_is_refused():
    small = language_model(dataclasses.replace(CONFIG, vocab_size=20))
    draft = speculative.DraftModel(small, weights.by_layer(random_params(small)))
    with pytest.raises(ValueError, match="the draft has 20 tokens, the model 40"):
        write(draft, Settings())
