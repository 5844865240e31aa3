"""The architecture of a VAE of rows of numbers, such as images or tables: dense layers on both sides of the latent."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.values import check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseVAEConfig:
    """A VAE of dense layers (Kingma and Welling 2014, 1312.6114, appendix C); by default 784-400-20-400-784."""

    # numbers in a row
    inputs: int = 784
    # widths of the hidden layers of the encoder; the decoder has them in reverse order
    hidden: tuple[int, ...] = (400,)
    # width of the latent
    latent_dim: int = 20
    # distribution of the numbers, given the latent. bernoulli: numbers in [0, 1], the decoder computes the probability
    # of 1; gaussian: any numbers, the decoder computes the mean of each, and each column has a learned variance
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"

    def __post_init__(self):
        check_values(self, "model")
        for name in ("inputs", "latent_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        for i, width in enumerate(self.hidden):
            if width < 1:
                raise ValueError(f"model.hidden[{i}]={width} must be at least 1")

    @property
    def max_len(self) -> int:
        """Numbers in a row."""
        return self.inputs

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """From the numbers to mean and log-variance of the latent."""
        return (self.inputs, *self.hidden, 2 * self.latent_dim)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """From the latent to a logit or mean of each number."""
        return (self.latent_dim, *reversed(self.hidden), self.inputs)
