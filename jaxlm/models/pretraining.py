"""Models for pretraining only: two encoders that share their embeddings (ELECTRA), an encoder with two heads (BERT).

The parameters are {"backbone": ..., "head": ...}; fine-tuning drops the head.
Letters: B batch, T positions, P masked positions, M pairs in a row, D model width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, EncoderConfig
from jaxlm.models.encoder import Encoder
from jaxlm.models.language_models import MaskedLMHead, logits, unembedding, unembedding_bias
from jaxlm.nn.layers import ACTIVATIONS, Dense, look_up, with_adapter


class ReplacedToken(nn.Module):
    """A discriminator, the backbone, and in its head a generator of fewer blocks with the same embeddings (ELECTRA)."""

    config: EncoderConfig
    generator_layers: int
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares both."""
        self.backbone = Encoder(self.config, self.compute)
        self.head = ReplacedTokenHead(self.config, self.generator_layers, self.compute)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T"]:
        """See `detect`; for `init`, which creates the generator as well."""
        logits = self.detect(tokens, **inputs)
        if self.is_initializing():
            self.generate(tokens, jnp.zeros((tokens.shape[0], 1), jnp.int32), **inputs)
        return logits

    def generate(
        self, tokens: Int[Array, "B T"], at: Int[Array, "B P"], **inputs: Any
    ) -> Float[Array, "B P D"]:
        """The generator's states at the masked positions `at`, for the logits of the tokens."""
        table = with_adapter(self.backbone.variables["params"]["embed"]["token"], "embedding")
        return self.head.generate(look_up(table, tokens, self.config, self.compute), at, **inputs)

    def detect(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T"]:
        """Logits that a token has been replaced, in float32; `inputs` are those of `Encoder`."""
        return self.head.detect(self.backbone(tokens, **inputs))


class ReplacedTokenHead(nn.Module):
    """The generator with its language-modeling head, and the discriminator's head."""

    config: EncoderConfig
    generator_layers: int
    compute: ComputeConfig

    def setup(self):
        """Declares the three."""
        config = dataclasses.replace(self.config, num_layers=self.generator_layers)
        self.generator = Encoder(config, self.compute)
        self.lm = MaskedLMHead(self.config)
        self.detector = DetectorHead(self.config)

    def generate(
        self, x: Float[Array, "B T D"], at: Int[Array, "B P"], **inputs: Any
    ) -> Float[Array, "B P D"]:
        """Embeddings of tokens to the states of the positions `at` that the output table turns into logits."""
        states = self.generator(x, **inputs)
        return self.lm(jnp.take_along_axis(states, at[..., None], axis=1))

    def detect(self, x: Float[Array, "B T D"]) -> Float[Array, "B T"]:
        """Logits that a token has been replaced."""
        return self.detector(x)


class DetectorHead(nn.Module):
    """Dense, activation, and one logit for each token."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T"]:
        """Logits in float32."""
        c = self.config
        x = ACTIVATIONS[c.activation_function](Dense(c.dim, c.init_std, name="transform")(x))
        return Dense(1, c.init_std, name="score")(x.astype(jnp.float32))[..., 0]


class SentencePairLM(nn.Module):
    """An encoder trained by masked language modeling and next-sentence prediction (BERT)."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares backbone and head."""
        self.backbone = Encoder(self.config, self.compute)
        self.head = SentencePairHead(self.config)

    @property
    def pooling(self) -> str:
        """How the pair is pooled, as in `Classifier`."""
        return "first"

    def __call__(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], Float[Array, "B 2"]]:
        """Logits of the token at each position, and of one pair a row at its first token; in float32."""
        every = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        states, pairs = self.hidden(tokens, every, every[:, :1], **inputs)
        backbone, head = (m.variables["params"] for m in (self.backbone, self.head))
        params = {"backbone": backbone, "head": head["lm"]}
        return logits(states, unembedding(params), bias=unembedding_bias(params)), pairs[:, 0]

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        at: Int[Array, "B P"],
        pair_at: Int[Array, "B M"],
        **inputs: Any,
    ) -> tuple[Float[Array, "B P D"], Float[Array, "B M 2"]]:
        """Transformed states of the positions `at`, and logits of the pairs whose [CLS] tokens are at `pair_at`."""
        x = self.backbone(tokens, **inputs)
        take = lambda indices: jnp.take_along_axis(x, indices[..., None], axis=1)
        return self.head(take(at), take(pair_at))


class SentencePairHead(nn.Module):
    """The head of masked language modeling, and a pooler with two classes."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B P D"], first: Float[Array, "B M D"]
    ) -> tuple[Float[Array, "B P D"], Float[Array, "B M 2"]]:
        """Transformed states of masked positions, and logits of pairs from the states of their first tokens."""
        c = self.config
        vector = jnp.tanh(Dense(c.dim, c.init_std, name="pooler")(first.astype(jnp.float32)))
        return MaskedLMHead(c, name="lm")(x), Dense(2, c.init_std, name="pair")(vector)
