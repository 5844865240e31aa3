"""The text VAE: an encoder, a Gaussian latent variable for each text, and a decoder that is given its value.

A row may hold several texts, each with a latent of its own, numbered by segment_ids from 1.

Letters: B rows, S positions of the encoder, T positions of the decoder, M texts per row, D model width, Z latent width,
C classes, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, VAEConfig
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.language_models import logits, unembedding
from jaxlm.nn.attention import Cache
from jaxlm.nn.layers import Dense, compute_dtype
from jaxlm.ops import latent
from jaxlm.ops.latent import Gaussian


def membership(segment_ids: Int[Array, "B T"], texts: int) -> Float[Array, "B M T"]:
    """1 where a token belongs to a text, numbered from 1 by its segment_id; M is `texts`."""
    return (segment_ids[:, None] == jnp.arange(1, texts + 1)[:, None]).astype(jnp.float32)


class Prior(Protocol):
    """The distribution of the latent before a text is seen."""

    def log_density(self, z: Float[Array, "... Z"]) -> Float[Array, "..."]:
        """Log-density in nats."""
        ...

    def sample(self, key: Array, count: int) -> Float[Array, "count Z"]:
        """Samples."""
        ...


class StandardNormal:
    """N(0, 1) in each dim."""

    def __init__(self, width: int):
        """A prior of this width."""
        self.width = width

    def log_density(self, z: Float[Array, "... Z"]) -> Float[Array, "..."]:
        """Log-density in nats."""
        zeros = jnp.zeros(self.width)
        return latent.log_density(z, Gaussian(zeros, zeros))

    def sample(self, key: Array, count: int) -> Float[Array, "count Z"]:
        """Samples."""
        return jax.random.normal(key, (count, self.width))


class Mixture:
    """The mixture, with equal weights, of the posteriors of learned inputs (Tomczak and Welling 2018, equation 9)."""

    def __init__(self, parts: Gaussian):
        """A mixture of Gaussians [K, Z]."""
        self.parts = parts

    def log_density(self, z: Float[Array, "... Z"]) -> Float[Array, "..."]:
        """Log-density in nats."""
        by_part = latent.log_density(z[..., None, :], self.parts)
        return jax.nn.logsumexp(by_part, axis=-1) - jnp.log(by_part.shape[-1])

    def sample(self, key: Array, count: int) -> Float[Array, "count Z"]:
        """Samples."""
        choice, noise = jax.random.split(key)
        index = jax.random.randint(choice, (count,), 0, len(self.parts.mean))
        return latent.sample(Gaussian(*(x[index] for x in self.parts)), noise)


class Pair(nn.Module):
    """The two backbones, so that each is a tree of its own: {"encoder": ..., "decoder": ...}."""

    config: VAEConfig
    compute: ComputeConfig

    def setup(self):
        """Declares both."""
        self.encoder = Encoder(self.config.encoder, self.compute)
        self.decoder = Decoder(self.config.decoder, self.compute)


class LatentHead(nn.Module):
    """What stands between the backbones: posterior, latent as the decoder is given it, classes; the output table."""

    config: VAEConfig
    num_classes: int = 0

    def setup(self):
        """Declares the dense layers and, where the model has them, learned inputs and output table."""
        c, d = self.config, self.config.decoder
        self.posterior = Dense(2 * c.latent_dim, c.encoder.init_std)
        for way in c.inject:
            setattr(self, way, Dense(d.dim, d.init_std))
        if self.num_classes:
            self.classes = Dense(self.num_classes, c.encoder.init_std)
        if c.prior == "vamp":
            self.pseudo = self.param(
                "pseudo_inputs",
                nn.initializers.normal(1.0),
                (c.pseudo_inputs, c.pseudo_len, c.encoder.embedding_width),
                jnp.float32,
            )
        if not d.tie_embeddings:
            init = nn.initializers.normal(d.init_std)
            self.table = self.param("unembedding", init, (d.vocab_size, d.dim), jnp.float32)

    def gaussian(self, pooled: Float[Array, "... D"]) -> Gaussian:
        """The posterior from pooled hidden states, in float32."""
        mean, log_variance = jnp.split(self.posterior(pooled.astype(jnp.float32)), 2, axis=-1)
        return Gaussian(mean, log_variance)


class TextVAE(nn.Module):
    """Encoder, latent and decoder; parameters are {"backbone": {"encoder", "decoder"}, "head": ...}."""

    config: VAEConfig
    compute: ComputeConfig = ComputeConfig()
    # classes that a linear layer predicts from the latent; 0: none
    num_classes: int = 0

    def setup(self):
        """Declares backbones and head."""
        self.backbone = Pair(self.config, self.compute)
        self.head = LatentHead(self.config, self.num_classes)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        decoder_tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B S"],
        decoder_segment_ids: Int[Array, "B T"],
        texts: int = 1,
    ) -> Float[Array, "B T D"]:
        """Hidden states of the decoder, given the posterior means; uses every parameter."""
        posterior = self.encode(tokens, segment_ids=segment_ids, texts=texts)
        self.prior_parts()
        if self.num_classes:
            self.classes(posterior.mean)
        return self.hidden(decoder_tokens, posterior.mean, segment_ids=decoder_segment_ids)

    def encode(
        self,
        tokens: Int[Array, "B S"],
        *,
        segment_ids: Int[Array, "B S"],
        texts: int,
        positions: Int[Array, "B S"] | None = None,
        key: Array | None = None,
    ) -> Gaussian:
        """The posterior [B, M, Z] of each text before `mean_scale` applies; of texts that a row lacks it means nothing.

        Args:
            tokens: ids.
            segment_ids: which text a token belongs to, from 1; 0 is padding.
            texts: M, at least the largest segment_id.
            positions: index of each token in its text; None: its index in the row.
            key: random key for dropout; None: no dropout.
        """
        x = self.backbone.encoder(tokens, segment_ids=segment_ids, positions=positions, key=key)
        counted = segment_ids
        if self.config.pooling == "first":
            starts = jnp.diff(segment_ids, axis=1, prepend=jnp.zeros_like(segment_ids[:, :1])) != 0
            counted = jnp.where(starts, segment_ids, 0)
        member = membership(counted, texts)
        total = jnp.einsum("BMS,BSD->BMD", member, x.astype(jnp.float32))
        return self.head.gaussian(total / jnp.maximum(member.sum(-1, keepdims=True), 1))

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        z: Float[Array, "B M Z"],
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of the decoder, whose logits are those of the next token of each text.

        Args:
            tokens: ids: a start token and the text, for each text.
            z: the latent of each text.
            segment_ids: which text a token belongs to, from 1; 0 is padding.
            positions: index of each token in its text; None: its index in the row.
            key: random key for dropout; None: no dropout.
        """
        return self._decode(tokens, z, segment_ids=segment_ids, positions=positions, key=key)[0]

    def with_cache(
        self,
        tokens: Int[Array, "B T"],
        z: Float[Array, "B M Z"],
        *,
        positions: Int[Array, "B T"],
        cache: tuple[Cache, ...],
    ) -> tuple[Float[Array, "B T V"], tuple[Cache, ...] | None]:
        """Logits, and the cache with these tokens added; a row is one text."""
        x, grown = self._decode(tokens, z, positions=positions, cache=cache)
        tree = {"backbone": self.backbone.decoder.variables["params"]}
        tree["head"] = self.head.variables["params"]
        return logits(x, unembedding(tree), softcap=self.config.decoder.logit_softcap), grown

    def _decode(
        self,
        tokens: Int[Array, "B T"],
        z: Float[Array, "B M Z"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        cache: tuple[Cache, ...] | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Cache, ...] | None]:
        c, texts = self.config, z.shape[1]
        own = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        z = z.astype(compute_dtype(self.compute))
        member = membership(own, texts).swapaxes(1, 2).astype(z.dtype)
        added = None
        if "embedding" in c.inject:
            added = member @ self.head.embedding(z)
        if "prefix" in c.inject:
            at_first = member * (positions == 0)[..., None]
            prefix = at_first @ self.head.prefix(z)
            added = prefix if added is None else added + prefix
        memory = memory_segments = None
        if "memory" in c.inject:
            memory = self.head.memory(z)
            memory_segments = jnp.broadcast_to(jnp.arange(1, texts + 1), z.shape[:2])
        return self.backbone.decoder(
            tokens,
            segment_ids=segment_ids,
            positions=positions,
            memory=memory,
            memory_segment_ids=memory_segments,
            added=added,
            cache=cache,
            key=key,
        )

    def classes(self, z: Float[Array, "... Z"]) -> Float[Array, "... C"]:
        """Logits of the classes in float32."""
        return self.head.classes(z.astype(jnp.float32))

    def prior_parts(self) -> Gaussian | None:
        """The parts of the prior, if it is a mixture: the posteriors of the learned inputs [K, Z]."""
        if self.config.prior != "vamp":
            return None
        x = self.backbone.encoder(self.head.pseudo)
        pooled = x[:, 0] if self.config.pooling == "first" else x.mean(1)
        return self.head.gaussian(pooled)


def make_prior(model: TextVAE, params: Any) -> Prior:
    """The prior of a model with these parameters."""
    parts: Any = model.apply({"params": params}, method="prior_parts")
    return StandardNormal(model.config.latent_dim) if parts is None else Mixture(parts)


def output_table(params: Any) -> Float[Array, "V D"]:
    """The table that turns hidden states into logits."""
    return unembedding({"backbone": params["backbone"]["decoder"], "head": params["head"]})


def init_params(model: TextVAE, key: Array, length: int = 8) -> Any:
    """Initial parameters; pure, so that it can be traced, jitted and sharded."""
    # plain attention: the kernels refuse a sequence this short
    model = model.clone(compute=dataclasses.replace(model.compute, attention="xla"))
    tokens = jnp.zeros((1, length), jnp.int32)
    ones = jnp.ones_like(tokens)
    return model.init(key, tokens, tokens, segment_ids=ones, decoder_segment_ids=ones)["params"]
