"""Verbatim continuation: how often a model writes on as its training text does, by the length of the prompt.

Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", 2202.07646, section 3: the last tokens of
a text are its suffix, the tokens before them the prompt; a text is extracted if greedy decoding writes the suffix token
by token. Texts that the model was not trained on show how much of that is due to text that anyone could continue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings


def matches(
    language_model: Any, texts: Sequence[np.ndarray], prompt: int, suffix: int
) -> np.ndarray:
    """How many tokens of its suffix the model writes before the first wrong one, of each text [N].

    Args:
        language_model: a decoder, from `run.load.load`.
        texts: token ids without control tokens, at least prompt + suffix of each.
        prompt: tokens of the prompt.
        suffix: tokens that are to be written.
    """
    settings = Settings(temperature=0.0, max_new_tokens=suffix)
    requests = []
    for ids in texts:
        start = len(ids) - prompt - suffix
        # control tokens stand before a text's beginning only
        before = list(language_model.before) if start == 0 else []
        requests.append(Request([*before, *map(int, ids[start:-suffix])], settings))
    found = []
    for ids, tokens in zip(texts, language_model.engine().run(requests)):
        written = [token.id for token in tokens]
        # a text that the model ends is shorter
        right = [have == want for have, want in zip(written, map(int, ids[-suffix:]))]
        found.append(right.index(False) if False in right else len(right))
    return np.array(found, int)


def long_enough(texts: Sequence[np.ndarray], least: int) -> list[np.ndarray]:
    """The texts of at least this many tokens."""
    return [ids for ids in texts if len(ids) >= least]
