"""Backbones with the heads that give logits of classes, of a text or of each of its tokens.

Letters: B batch, T positions, D model width, C classes.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
)
from jaxlm.models.backbones import last_hidden, make_backbone
from jaxlm.models.encoder import Encoder
from jaxlm.nn.layers import ACTIVATIONS, Dense, Norm, dropout, split_key


class Classifier(nn.Module):
    """A backbone, one vector for the whole text, and a linear layer to the classes.

    The vector is the first token's through a hidden layer (BERT's pooler), the last token's (GPT), or the mean of all.
    """

    config: DecoderConfig | EncoderConfig | EncoderDecoderConfig
    num_classes: int
    pooling: str = "first"
    dropout: float = 0.1
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = make_backbone(self.config, self.compute)
        self.head = ClassificationHead(self.config, self.num_classes, self.pooling, self.dropout)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"],
        key: Array | None = None,
        **inputs: Any,
    ) -> Float[Array, "B C"]:
        """Logits of the classes in float32; `segment_ids` is 1 on the text and 0 on the padding."""
        backbone_key, head_key = split_key(key, 2)
        # an encoder-decoder uses its encoder alone, and only that has parameters
        read = getattr(self.backbone, "encode", self.backbone)
        x = last_hidden(read(tokens, segment_ids=segment_ids, key=backbone_key, **inputs))
        return self.head(x, segment_ids, key=head_key)


class ClassificationHead(nn.Module):
    """Pools the hidden states and maps them to the classes."""

    config: DecoderConfig | EncoderConfig | EncoderDecoderConfig
    num_classes: int
    pooling: str
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], segment_ids: Int[Array, "B T"], *, key: Array | None
    ) -> Float[Array, "B C"]:
        """Logits of the classes in float32."""
        c = self.config
        pooler_key, key = split_key(key, 2)
        vector = pool(x.astype(jnp.float32), segment_ids > 0, self.pooling)
        if self.pooling == "first" or _has_head_norm(c):
            vector = _hidden_layer(c, dropout(vector, self.dropout, pooler_key))
        vector = dropout(vector, self.dropout, key)
        # decoders of other libraries have no bias here
        has_bias = not isinstance(c, DecoderConfig)
        return Dense(self.num_classes, c.init_std, has_bias, name="classes")(vector)


class TokenClassifier(nn.Module):
    """A backbone and a linear layer from each token to the classes: named entities, parts of speech."""

    config: DecoderConfig | EncoderConfig
    num_classes: int
    dropout: float = 0.1
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = make_backbone(self.config, self.compute)
        self.head = TokenHead(self.config, self.num_classes, self.dropout)

    def __call__(
        self, tokens: Int[Array, "B T"], *, key: Array | None = None, **inputs: Any
    ) -> Float[Array, "B T C"]:
        """Logits of the classes in float32; `inputs` are those of the backbone."""
        backbone_key, head_key = split_key(key, 2)
        return self.head(
            last_hidden(self.backbone(tokens, key=backbone_key, **inputs)), key=head_key
        )


class SpanQA(TokenClassifier):
    """Extractive question answering: logits [B, T, 2] of the first and the last token of the answer."""

    num_classes: int = 2
    dropout: float = 0.0


class Detector(nn.Module):
    """An encoder that classifies each token as original or replaced (ELECTRA, 2003.10555)."""

    config: EncoderConfig
    # of the head's hidden layer; None: config.head_activation
    activation: str | None = None
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = Encoder(self.config, self.compute)
        activation = self.activation or self.config.head_activation
        self.head = TokenHead(self.config, 1, 0.0, hidden_layer=activation)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T"]:
        """Logits in float32, positive where a token was replaced; `inputs` are those of `Encoder`."""
        return self.head(self.backbone(tokens, **inputs), key=None)[..., 0]


class TokenHead(nn.Module):
    """Maps each hidden state to the classes."""

    config: DecoderConfig | EncoderConfig
    num_classes: int
    dropout: float
    # activation of a hidden layer; None: there is one only if the config says so
    hidden_layer: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], *, key: Array | None) -> Float[Array, "B T C"]:
        """Logits of the classes in float32."""
        c, x = self.config, x.astype(jnp.float32)
        if self.hidden_layer or _has_head_norm(c):
            x = _hidden_layer(c, x, self.hidden_layer)
        return Dense(self.num_classes, c.init_std, name="classes")(dropout(x, self.dropout, key))


def _has_head_norm(c: TransformerConfig) -> bool:
    return isinstance(c, EncoderConfig) and c.head_norm


def _hidden_layer(c: TransformerConfig, x: Array, name: str | None = None) -> Array:
    """The hidden layer of a head, within its `__call__`; `name` is an activation other than the config's."""
    bias = True
    if isinstance(c, EncoderConfig):
        name, bias = name or c.head_activation, c.head_bias
    name = name or "tanh"
    activation = jnp.tanh if name == "tanh" else ACTIVATIONS[name]
    y = activation(Dense(x.shape[-1], c.init_std, bias, name="pooler")(x))
    return Norm(c, name="norm")(y) if _has_head_norm(c) else y


def pool(x: Float[Array, "B T D"], valid: Array, pooling: str) -> Float[Array, "B D"]:
    """The vector of the first token, of the last valid one, or the mean of the valid ones."""
    if pooling == "first":
        return x[:, 0]
    if pooling == "last":
        # the same on either side of the padding
        last = (valid * jnp.arange(valid.shape[-1])).max(-1)
        return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    assert pooling == "mean", pooling
    weights = valid.astype(x.dtype)
    return jnp.einsum("BTD,BT->BD", x, weights) / jnp.maximum(weights.sum(-1), 1)[:, None]
