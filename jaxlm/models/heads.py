"""What goes on top of a backbone: language models (causal, masked, from a source), classes of texts and of tokens.

The parameters of every model are {"backbone": ..., "head": ...}: fine-tuning takes the first from a checkpoint and
makes the second anew. Letters: B batch, T positions, D model width, V vocabulary, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
)
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.nn.attention import Cache
from jaxlm.nn.layers import ACTIVATIONS, Norm, dropout, split_key
from jaxlm.ops.linear import linear


class CausalLM(nn.Module):
    """A decoder whose hidden states give the logits of the next token."""

    config: DecoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and, where the embedding is not tied, the output table."""
        self.backbone = Decoder(self.config, self.compute)
        if not self.config.tie_embeddings:
            self.head = Unembedding(self.config)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T V"]:
        """Logits in float32; `inputs` are those of `Decoder`."""
        return self.with_cache(tokens, **inputs)[0]

    def hidden(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T D"]:
        """Last hidden states, from which `ops.losses.token_cross_entropy` makes the loss without all logits."""
        if not self.config.tie_embeddings:
            self.head()  # so that init creates the table
        return self.backbone(tokens, **inputs)[0]

    def with_cache(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], Cache | None]:
        """Logits and the cache with these tokens in it."""
        x, cache = self.backbone(tokens, **inputs)
        if self.config.tie_embeddings:
            table = self.backbone.variables["params"]["embed"]["token"]["embedding"]
        else:
            table = self.head()
        return logits(x, table, softcap=self.config.logit_softcap), cache


class Unembedding(nn.Module):
    """The output table of a model that does not tie it to the input's."""

    config: DecoderConfig | EncoderConfig

    @nn.compact
    def __call__(self) -> Float[Array, "V D"]:
        """The table."""
        c = self.config
        init = nn.initializers.normal(c.init_std)
        return self.param("unembedding", init, (c.vocab_size, c.dim), jnp.float32)


class MaskedLM(nn.Module):
    """An encoder whose hidden states, transformed once more, give the logits of the token at each place (BERT)."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = Encoder(self.config, self.compute)
        self.head = MaskedLMHead(self.config)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T V"]:
        """Logits in float32; `inputs` are those of `Encoder`."""
        x = self.hidden(tokens, **inputs)
        params = {m: getattr(self, m).variables["params"] for m in ("backbone", "head")}
        return logits(x, unembedding(params), bias=unembedding_bias(params))

    def hidden(
        self, tokens: Int[Array, "B T"], at: Int[Array, "B P"] | None = None, **inputs: Any
    ) -> Float[Array, "B T D"]:
        """Transformed hidden states, of all places or of those in `at` only."""
        x = self.backbone(tokens, **inputs)
        if at is not None:
            x = jnp.take_along_axis(x, at[..., None], axis=1)
        return self.head(x)


class MaskedLMHead(nn.Module):
    """Dense, activation, norm; and the bias of the logits (and their table, if it is not tied)."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the logits are made from."""
        c = self.config
        x = Dense(c.embedding_width, c.init_std, c.head_bias, name="transform")(x)
        x = Norm(c, name="norm")(ACTIVATIONS[c.activation_function](x))
        self.param("unembedding_bias", nn.initializers.zeros, (c.vocab_size,), jnp.float32)
        if not c.tie_embeddings:
            init, shape = nn.initializers.normal(c.init_std), (c.vocab_size, c.embedding_width)
            self.param("unembedding", init, shape, jnp.float32)
        return x


class Seq2SeqLM(nn.Module):
    """An encoder-decoder whose hidden states give the logits of the target's next token."""

    config: EncoderDecoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = EncoderDecoder(self.config, self.compute)
        self.head = Seq2SeqHead(self.config)

    def __call__(
        self, tokens: Int[Array, "B S"], decoder_tokens: Int[Array, "B T"], **inputs: Any
    ) -> Float[Array, "B T V"]:
        """Logits in float32; `inputs` are those of `EncoderDecoder`."""
        return self._logits(self.hidden(tokens, decoder_tokens, **inputs))

    def hidden(
        self, tokens: Int[Array, "B S"], decoder_tokens: Int[Array, "B T"], **inputs: Any
    ) -> Float[Array, "B T D"]:
        """Hidden states of the target, from which `ops.losses.token_cross_entropy` makes the loss."""
        return self.head(self.backbone(tokens, decoder_tokens, **inputs))

    def encode(self, tokens: Int[Array, "B S"], **inputs: Any) -> Float[Array, "B S D"]:
        """Hidden states of the source; `inputs` are those of `Encoder`."""
        return self.backbone.encode(tokens, **inputs)

    def with_cache(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], Cache | None]:
        """Logits of the target, and the cache with these tokens in it; `inputs` are those of `Decoder`."""
        x, cache = self.backbone.decode(tokens, **inputs)
        return self._logits(self.head(x)), cache

    def _logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        params = {m: getattr(self, m).variables.get("params", {}) for m in ("backbone", "head")}
        bias, softcap = unembedding_bias(params), self.config.logit_softcap
        return logits(x, unembedding(params), bias=bias, softcap=softcap)


class Seq2SeqHead(nn.Module):
    """The scale of the outputs; the bias of the logits and their table, where the model has its own."""

    config: EncoderDecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the logits are made from."""
        c = self.config
        if c.logit_bias:
            self.param("unembedding_bias", nn.initializers.zeros, (c.vocab_size,), jnp.float32)
        if not c.tie_embeddings:
            init = nn.initializers.normal(c.init_std)
            self.param("unembedding", init, (c.vocab_size, c.dim), jnp.float32)
        return x * jnp.asarray(c.dim**-0.5, x.dtype) if c.scale_outputs else x


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
        # of an encoder-decoder only the encoder reads and is created
        read = getattr(self.backbone, "encode", self.backbone)
        x = _states(read(tokens, segment_ids=segment_ids, key=backbone_key, **inputs))
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
    """A backbone and a linear layer from each token to the classes: names in a text, parts of speech."""

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
        return self.head(_states(self.backbone(tokens, key=backbone_key, **inputs)), key=head_key)


class SpanQA(TokenClassifier):
    """A backbone that finds the answer of a question in a text: logits [B, T, 2] of its first and last token."""

    num_classes: int = 2
    dropout: float = 0.0


class Detector(nn.Module):
    """An encoder that says of each token whether it was put in place of another (ELECTRA, 2003.10555)."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = Encoder(self.config, self.compute)
        self.head = TokenHead(self.config, 1, 0.0, has_hidden_layer=True)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T"]:
        """Logits in float32, positive where a token was replaced; `inputs` are those of `Encoder`."""
        return self.head(self.backbone(tokens, **inputs), key=None)[..., 0]


class TokenHead(nn.Module):
    """Maps each hidden state to the classes."""

    config: DecoderConfig | EncoderConfig
    num_classes: int
    dropout: float
    has_hidden_layer: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], *, key: Array | None) -> Float[Array, "B T C"]:
        """Logits of the classes in float32."""
        c, x = self.config, x.astype(jnp.float32)
        x = _hidden_layer(c, x) if self.has_hidden_layer or _has_head_norm(c) else x
        return Dense(self.num_classes, c.init_std, name="classes")(dropout(x, self.dropout, key))


def _has_head_norm(c: TransformerConfig) -> bool:
    return isinstance(c, EncoderConfig) and c.head_norm


def _hidden_layer(c: TransformerConfig, x: Array) -> Array:
    """The hidden layer of a head, within its `__call__`."""
    name, bias = "tanh", True
    if isinstance(c, EncoderConfig):
        name, bias = c.head_activation, c.head_bias
    activation = jnp.tanh if name == "tanh" else ACTIVATIONS[name]
    y = activation(Dense(x.shape[-1], c.init_std, bias, name="pooler")(x))
    return Norm(c, name="norm")(y) if _has_head_norm(c) else y


class Headless(nn.Module):
    """A backbone by itself, in the same tree of parameters as those with heads."""

    config: ModelConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the backbone."""
        self.backbone = make_backbone(self.config, self.compute)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T D"]:
        """The last hidden states, of an encoder-decoder those of the target (`decoder_tokens`)."""
        return _states(self.backbone(tokens, **inputs))


def make_backbone(config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """The encoder, decoder or encoder-decoder of a config."""
    if isinstance(config, DecoderConfig):
        return Decoder(config, compute)
    if isinstance(config, EncoderDecoderConfig):
        return EncoderDecoder(config, compute)
    return Encoder(config, compute)


def _states(output: Any) -> Float[Array, "B T D"]:
    """Hidden states from what a backbone returns; a decoder returns its cache as well."""
    return output[0] if isinstance(output, tuple) else output


class Dense(nn.Module):
    """A linear layer."""

    features: int
    std: float
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        """x W + b in the dtype of `x`."""
        init = nn.initializers.normal(self.std)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        if not self.has_bias:
            return linear(x, kernel)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return linear(x, kernel, bias)


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


def logits(
    hidden: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    *,
    bias: Float[Array, " V"] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B T V"]:
    """Logits of the vocabulary in float32."""
    y = jnp.einsum(
        "BTD,VD->BTV", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32
    )
    y = y if bias is None else y + bias
    return y if softcap is None else softcap * jnp.tanh(y / softcap)


def unembedding(params: Any) -> Float[Array, "V D"]:
    """The output table in a tree of parameters: the head's own, or the input embedding if they are tied."""
    head = params.get("head", {})
    if "unembedding" in head:
        return head["unembedding"]
    return params["backbone"]["embed"]["token"]["embedding"]


def unembedding_bias(params: Any) -> Float[Array, " V"] | None:
    """The bias of the logits, if the model has one."""
    return params.get("head", {}).get("unembedding_bias")


def init_params(model: nn.Module, key: jax.Array, length: int = 8) -> Any:
    """Fresh parameters of any model here; pure, so it can be traced, jitted and sharded.

    They do not depend on how the model runs, so kernels that refuse so short a row are left out.
    """
    model = model.clone(compute=dataclasses.replace(model.compute, attention="xla"))
    tokens = jnp.zeros((1, length), jnp.int32)
    inputs: dict[str, Any] = {"segment_ids": jnp.ones_like(tokens)}
    # a classifier of an encoder-decoder has its encoder only
    if isinstance(model.config, EncoderDecoderConfig) and not isinstance(model, Classifier):
        inputs["decoder_tokens"] = tokens
    return model.init(key, tokens, **inputs)["params"]
