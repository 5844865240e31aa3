"""The architecture of a text VAE: an encoder, a latent variable, and a decoder that is given its value."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.model import DecoderConfig, EncoderConfig
from jaxlm.config.values import check_values

Inject = Literal["memory", "embedding", "prefix"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """A text VAE (Bowman et al. 2016, 1511.06349): encoder, Gaussian latent variable, decoder."""

    # gives the posterior; with parameters of its own
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    # writes the text, given the latent
    decoder: DecoderConfig = dataclasses.field(default_factory=DecoderConfig)
    # width of the latent
    latent_dim: int = 32
    # how the decoder is given the latent: as memory that every layer attends to, added to the embedding of every
    # token, or added to that of the first token only; several may be combined
    inject: tuple[Inject, ...] = ("memory",)
    # hidden states that the posterior is computed from: their mean, or the first
    pooling: Literal["mean", "first"] = "mean"
    # prior of the latent: a standard normal, or the mixture of the posteriors of learned inputs (VampPrior, Tomczak and
    # Welling 2018, 1705.07120)
    prior: Literal["normal", "vamp"] = "normal"
    # with prior vamp: number of learned inputs, and embeddings in each
    pseudo_inputs: int = 64
    pseudo_len: int = 8
    # normalise the posterior means over the batch to this standard deviation, which keeps the divergence above
    # latent_dim * mean_scale^2 / 2 (BN-VAE, Zhu et al. 2020, 2004.12585); 0: do not
    mean_scale: float = 0.0

    def __post_init__(self):
        check_values(self, "model")
        for name in ("latent_dim", "pseudo_inputs", "pseudo_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
            default = type(self).__dataclass_fields__[name].default
            if name != "latent_dim" and self.prior != "vamp" and getattr(self, name) != default:
                raise ValueError(
                    f"model.{name} has no effect with model.prior={self.prior}: leave it unset"
                )
        if not self.inject:
            raise ValueError(
                "model.inject is empty: the decoder would never see the latent; use memory, embedding or prefix"
            )
        if len(set(self.inject)) != len(self.inject):
            raise ValueError(f"model.inject={self.inject} names a way twice")
        if self.prior == "vamp" and self.pseudo_len > self.encoder.max_len:
            raise ValueError(
                f"model.pseudo_len={self.pseudo_len} is more than model.encoder.max_len={self.encoder.max_len}: "
                "raise one or lower the other"
            )
        if self.mean_scale and self.prior != "normal":
            raise ValueError("model.mean_scale needs model.prior=normal: leave one of them unset")
        if self.decoder.logit_scale != 1 or self.decoder.logit_bias:
            raise ValueError(
                f"model.decoder.logit_scale={self.decoder.logit_scale} and "
                f"model.decoder.logit_bias={self.decoder.logit_bias} are not supported in a VAE: leave them out"
            )
        if self.mean_scale < 0:
            raise ValueError(f"model.mean_scale={self.mean_scale} must not be negative")

    @property
    def max_len(self) -> int:
        """Tokens of the longest text."""
        return min(self.encoder.max_len, self.decoder.max_len)

    @property
    def vocab_size(self) -> int | None:
        """Entries of the decoder's vocabulary."""
        return self.decoder.vocab_size
