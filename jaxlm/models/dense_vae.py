"""A VAE of rows of numbers: an encoder and a decoder of dense layers, and a Gaussian latent variable between them.

Letters: B rows, D numbers in a row, Z latent width.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxlm.config import ComputeConfig, DenseVAEConfig
from jaxlm.nn.layers import Dense, compute_dtype
from jaxlm.ops import latent
from jaxlm.ops.latent import Gaussian


class HiddenLayers(nn.Module):
    """Dense layers, each followed by a ReLU."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B F"]:
        """The output of the last layer, in the dtype of `x`."""
        for i, width in enumerate(self.widths):
            x = jax.nn.relu(_dense(x, width, f"layer_{i}"))
        return x


class BothSides(nn.Module):
    """The hidden layers as two trees: {"encoder": ..., "decoder": ...}."""

    config: DenseVAEConfig

    def setup(self):
        """Declares both."""
        self.encoder = HiddenLayers(self.config.encoder_widths[1:-1])
        self.decoder = HiddenLayers(self.config.decoder_widths[1:-1])


class Outputs(nn.Module):
    """A last layer, in float32."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B F"]) -> Float[Array, "B O"]:
        """x W + b."""
        return _dense(x.astype(jnp.float32), self.width, "dense")


class LogVariances(nn.Module):
    """The log-variance of each column: a layer that is only a bias, so that a row has no variance of its own.

    With variances from the decoder, the density of a training row has no upper limit, and that of other rows no lower.
    """

    width: int

    @nn.compact
    def __call__(self) -> Float[Array, " D"]:
        """In nats; 0 at the start, the variance of a standardised column."""
        return self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)


class LastLayers(nn.Module):
    """What computes the posterior, and the likelihood of the numbers."""

    config: DenseVAEConfig

    def setup(self):
        """Declares the layers."""
        if self.config.likelihood == "gaussian":
            self.log_variances = LogVariances(self.config.inputs)
        self.posterior = Outputs(self.config.encoder_widths[-1])
        self.likelihood = Outputs(self.config.decoder_widths[-1])


class DenseVAE(nn.Module):
    """Encoder, latent and decoder; parameters are {"backbone": {"encoder", "decoder"}, "head": ...}."""

    config: DenseVAEConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the layers."""
        self.backbone = BothSides(self.config)
        self.head = LastLayers(self.config)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """log p(x | z) for the posterior means; uses every parameter."""
        return self.log_likelihood(x, self.encode(x).mean)

    def encode(self, x: Float[Array, "B D"]) -> Gaussian:
        """The posterior [B, Z] of each row."""
        hidden = self.backbone.encoder(x.astype(compute_dtype(self.compute)))
        return Gaussian(*jnp.split(self.head.posterior(hidden), 2, axis=-1))

    def log_likelihood(self, x: Float[Array, "B D"], z: Float[Array, "B Z"]) -> Float[Array, " B"]:
        """log p(x | z) of each row, in nats."""
        hidden = self.backbone.decoder(z.astype(compute_dtype(self.compute)))
        outputs = self.head.likelihood(hidden)
        if self.config.likelihood == "bernoulli":
            return latent.bernoulli_log_probability(x, outputs)
        return latent.log_density(x, Gaussian(outputs, self.head.log_variances()))


def _dense(x: Array, width: int, name: str) -> Array:
    # outputs of the variance of the inputs (LeCun et al. 1998)
    return Dense(width, x.shape[-1] ** -0.5, name=name)(x)


def init_params(model: DenseVAE, key: Array) -> Any:
    """Initial parameters; pure, so that it can be traced, jitted and sharded."""
    return model.init(key, jnp.zeros((1, model.config.inputs)))["params"]
