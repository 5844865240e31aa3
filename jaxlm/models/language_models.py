"""Backbones with the heads that give logits of the vocabulary: causal, masked, and from a source.

Letters: B batch, T positions, S positions of the source, P predicted positions, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, DecoderConfig, EncoderConfig, EncoderDecoderConfig
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.nn.attention import Cache
from jaxlm.nn.layers import ACTIVATIONS, Dense, Norm, kernel, with_adapter
from jaxlm.ops.linear import merged


class CausalLM(nn.Module):
    """A decoder whose hidden states give the logits of the next token."""

    config: DecoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the backbone, and what the logits need besides it: an output table, a bias."""
        self.backbone = Decoder(self.config, self.compute)
        if not self.config.tie_embeddings or self.config.logit_bias:
            self.head = Unembedding(self.config)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T V"]:
        """Logits in float32; `inputs` are those of `Decoder`."""
        return self.with_cache(tokens, **inputs)[0]

    def hidden(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T D"]:
        """The states that the output table turns into logits.

        `ops.losses.token_cross_entropy` computes the loss from them without storing all logits.
        """
        if self._has_head:
            self.head()  # so that init creates its parameters
        return self._scaled(self.backbone(tokens, **inputs)[0])

    def with_cache(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], tuple[Cache, ...] | None]:
        """Logits, and the cache with these tokens added."""
        x, cache = self.backbone(tokens, **inputs)
        params = {"backbone": self.backbone.variables["params"]}
        if self._has_head:
            self.head()
            params["head"] = self.head.variables["params"]
        bias, softcap = unembedding_bias(params), self.config.logit_softcap
        return logits(self._scaled(x), unembedding(params), bias=bias, softcap=softcap), cache

    @property
    def _has_head(self) -> bool:
        return not self.config.tie_embeddings or self.config.logit_bias

    def _scaled(self, x: Array) -> Array:
        scale = self.config.logit_scale
        return x if scale == 1 else x * jnp.asarray(scale, x.dtype)


class Unembedding(nn.Module):
    """The output table of a model with untied embeddings, and the bias of its logits."""

    config: DecoderConfig

    @nn.compact
    def __call__(self) -> None:
        """Creates the parameters, which `unembedding` and `unembedding_bias` read."""
        c = self.config
        assert c.vocab_size is not None
        if not c.tie_embeddings:
            init = nn.initializers.normal(c.init_std)
            kernel(self, "unembedding", init, (c.vocab_size, c.dim))
        if c.logit_bias:
            self.param("unembedding_bias", nn.initializers.zeros, (c.vocab_size,), jnp.float32)


class MaskedLM(nn.Module):
    """An encoder whose hidden states, transformed once more, give the logits of the token at each position (BERT)."""

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
        """Transformed hidden states, of all positions or only of those in `at`."""
        x = self.backbone(tokens, **inputs)
        if at is not None:
            x = jnp.take_along_axis(x, at[..., None], axis=1)
        return self.head(x)


class MaskedLMHead(nn.Module):
    """Dense, activation, norm; and the bias of the logits (and their table, if it is not tied)."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The states that the output table turns into logits."""
        c = self.config
        x = Dense(c.embedding_width, c.init_std, c.head_bias, name="transform")(x)
        x = Norm(c, name="norm")(ACTIVATIONS[c.lm_head_activation or c.activation_function](x))
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
        """Hidden states of the target, for `ops.losses.token_cross_entropy`."""
        return self.head(self.backbone(tokens, decoder_tokens, **inputs))

    def encode(self, tokens: Int[Array, "B S"], **inputs: Any) -> Float[Array, "B S D"]:
        """Hidden states of the source; `inputs` are those of `Encoder`."""
        return self.backbone.encode(tokens, **inputs)

    def with_cache(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], tuple[Cache, ...] | None]:
        """Logits of the target, and the cache with these tokens added; `inputs` are those of `Decoder`."""
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
        """The states that the output table turns into logits."""
        c = self.config
        if c.logit_bias:
            self.param("unembedding_bias", nn.initializers.zeros, (c.vocab_size,), jnp.float32)
        if not c.tie_embeddings:
            init = nn.initializers.normal(c.init_std)
            self.param("unembedding", init, (c.vocab_size, c.dim), jnp.float32)
        return x * jnp.asarray(c.dim**-0.5, x.dtype) if c.scale_outputs else x


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
    """The output table in a tree of parameters: the head's own, or if they are tied the input table, of an
    encoder-decoder that of the target."""
    head, backbone = params.get("head", {}), params["backbone"]
    if "unembedding" in head:
        return merged(with_adapter(head, "unembedding"))
    embed = backbone.get("decoder_embed", backbone.get("embed"))
    return merged(with_adapter(embed["token"], "embedding"))


def unembedding_bias(params: Any) -> Float[Array, " V"] | None:
    """The bias of the logits, if the model has one."""
    return params.get("head", {}).get("unembedding_bias")
