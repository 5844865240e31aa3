"""Encoder-decoders that classify: the decoder reads the text a second time (BART, Lewis et al. 2020, 1910.13461, 3.1).

Letters: B batch, T positions, D model width, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, EncoderDecoderConfig
from jaxlm.models.classifiers import TokenHead
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.nn.layers import Dense, dropout, split_key


@dataclasses.dataclass(frozen=True)
class Reading:
    """Control tokens by which the decoder reads a text."""

    # token that ends a text: its classes are read at the last one
    end: int
    # token before the text; None: the text's last one that is not padding (mBART)
    start: int | None
    padding: int

    def shifted(self, tokens: Int[Array, "B T"]) -> Int[Array, "B T"]:
        """The text moved right by one, as the decoder's input."""
        first = jnp.full_like(tokens[:, :1], self.start or 0)
        if self.start is None:
            last = (tokens != self.padding).sum(1, keepdims=True) - 1
            first = jnp.take_along_axis(tokens, last, axis=1)
        return jnp.concatenate([first, tokens[:, :-1]], axis=1)


class TwiceReadClassifier(nn.Module):
    """Logits of a text's classes, from the decoder's state at the last token that ends it."""

    config: EncoderDecoderConfig
    num_classes: int
    reading: Reading
    dropout: float = 0.0
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = EncoderDecoder(self.config, self.compute)
        self.head = _TextHead(self.config, self.num_classes, self.dropout)

    def __call__(
        self, tokens: Int[Array, "B T"], *, key: Array | None = None, **inputs: Any
    ) -> Float[Array, "B C"]:
        """Logits in float32; `inputs` are those of the source."""
        backbone_key, head_key = split_key(key, 2)
        states = self.backbone(tokens, self.reading.shifted(tokens), key=backbone_key, **inputs)
        # the last of several, and the first token if there is none
        at = jnp.where(tokens == self.reading.end, jnp.arange(tokens.shape[1]), 0).max(1)
        state = jnp.take_along_axis(states, at[:, None, None], axis=1)[:, 0]
        return self.head(state, key=head_key)


class TwiceReadSpanQA(nn.Module):
    """Logits [B, T, 2] of the first and the last token of an answer, from the decoder's states."""

    config: EncoderDecoderConfig
    reading: Reading
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = EncoderDecoder(self.config, self.compute)
        self.head = TokenHead(self.config.decoder, 2, 0.0)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T 2"]:
        """Logits in float32; `inputs` are those of the source."""
        return self.head(self.backbone(tokens, self.reading.shifted(tokens), **inputs), key=None)


class _TextHead(nn.Module):
    """A hidden layer and the classes."""

    config: EncoderDecoderConfig
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], *, key: Array | None) -> Float[Array, "B C"]:
        c, (before, after) = self.config, split_key(key, 2)
        x = dropout(x.astype(jnp.float32), self.dropout, before)
        x = jnp.tanh(Dense(c.dim, c.init_std, name="pooler")(x))
        return Dense(self.num_classes, c.init_std, name="classes")(dropout(x, self.dropout, after))
