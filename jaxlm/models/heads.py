"""All models that have a head, and what holds for each of them.

The parameters of every model are {"backbone": ..., "head": ...}: fine-tuning loads the first from a checkpoint and
initialises the second.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlm.config import EncoderDecoderConfig
from jaxlm.models.backbones import Headless
from jaxlm.models.classifiers import Classifier, Detector, SpanQA, TokenClassifier, pool
from jaxlm.models.embedder import Embedder
from jaxlm.models.language_models import (
    CausalLM,
    MaskedLM,
    MaskedLMHead,
    Seq2SeqLM,
    unembedding,
    unembedding_bias,
)
from jaxlm.models.twice_read import TwiceReadClassifier, TwiceReadSpanQA

__all__ = [
    "CausalLM",
    "Classifier",
    "Detector",
    "Embedder",
    "Headless",
    "MaskedLM",
    "MaskedLMHead",
    "Seq2SeqLM",
    "SpanQA",
    "TokenClassifier",
    "TwiceReadClassifier",
    "TwiceReadSpanQA",
    "init_params",
    "needs_target",
    "pool",
    "unembedding",
    "unembedding_bias",
]


# of an encoder-decoder they have the encoder only, or give the decoder the same text
_ONE_TEXT = (Classifier, TwiceReadClassifier, TwiceReadSpanQA)


def needs_target(model: nn.Module) -> bool:
    """Whether a model reads a target beside its text."""
    return isinstance(getattr(model, "config", None), EncoderDecoderConfig) and not isinstance(
        model, _ONE_TEXT
    )


def init_params(model: nn.Module, key: jax.Array, length: int = 8) -> Any:
    """Initial parameters of any model here; pure, so that it can be traced, jitted and sharded.

    They do not depend on how the model runs, so plain attention is used: the kernels refuse a sequence this short.
    """
    model = model.clone(compute=dataclasses.replace(model.compute, attention="xla"))
    tokens = jnp.zeros((1, length), jnp.int32)
    inputs: dict[str, Any] = {"segment_ids": jnp.ones_like(tokens)}
    if needs_target(model):
        inputs["decoder_tokens"] = tokens
    return model.init(key, tokens, **inputs)["params"]
