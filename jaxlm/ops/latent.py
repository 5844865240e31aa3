"""Formulas of variational autoencoders: Gaussian posteriors, their divergence from the prior, bounds and diagnostics.

Letters: N texts, Z width of the latent, K samples per text. Everything is in nats.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# a unit is active if the variance of its posterior mean over the data is at least this (Burda et al. 2016, section 5.2)
ACTIVE_VARIANCE = 0.01

FreeBits = Literal["dimension", "total"]


class Gaussian(NamedTuple):
    """A Gaussian with a diagonal covariance."""

    mean: Float[Array, "... Z"]
    log_variance: Float[Array, "... Z"]


def sample(posterior: Gaussian, key: Array) -> Float[Array, "... Z"]:
    """A sample that is differentiable in mean and variance (Kingma and Welling 2014, 1312.6114, section 2.4)."""
    noise = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


def log_density(z: Float[Array, "... Z"], gaussian: Gaussian) -> Float[Array, "..."]:
    """Log-density of z, summed over the dims of the latent."""
    square = jnp.square(z - gaussian.mean) * jnp.exp(-gaussian.log_variance)
    return -0.5 * (math.log(2 * math.pi) + gaussian.log_variance + square).sum(-1)


def bernoulli_log_probability(
    x: Float[Array, "... D"], logits: Float[Array, "... D"]
) -> Float[Array, "..."]:
    """x log p + (1 - x) log(1 - p), summed over the last dim (Kingma and Welling 2014, appendix C.1).

    For x of 0 and 1 it is a log-probability; for x between them (grey values of pixels) minus a cross-entropy.
    """
    return (x * logits - jax.nn.softplus(logits)).sum(-1)


def kl_to_standard_normal(posterior: Gaussian) -> Float[Array, "... Z"]:
    """Divergence from N(0, 1), by dim (Kingma and Welling 2014, appendix B)."""
    mean, log_variance = posterior
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


def free_bits(
    kl: Float[Array, "N Z"], counts: Float[Array, " N"], minimum: float, per: FreeBits
) -> Float[Array, ""]:
    """Sum over the texts of the divergence, with no gradient where its mean is less than `minimum` nats.

    Args:
        kl: divergence by text and dim.
        counts: 1 for each text that counts, 0 for the others.
        minimum: in nats; of each dim or of their sum.
        per: "dimension": sum over the dims of max(minimum, mean over the texts) (Kingma et al. 2016, 1606.04934,
            equation 12, each dim a group); "total": max(minimum, mean over the texts of the sum over the dims).
    """
    texts = jnp.maximum(counts.sum(), 1)
    means = (kl * counts[:, None]).sum(0) / texts
    if per == "dimension":
        return jnp.maximum(means, minimum).sum() * counts.sum()
    return jnp.maximum(means.sum(), minimum) * counts.sum()


def mean_and_variance(
    means: Float[Array, "N Z"], counts: Float[Array, " N"]
) -> tuple[Float[Array, " Z"], Float[Array, " Z"]]:
    """Mean and variance by dim over the texts that count."""
    total = jnp.maximum(counts.sum(), 1)
    center = (means * counts[:, None]).sum(0) / total
    return center, (jnp.square(means - center) * counts[:, None]).sum(0) / total


def normalise(
    means: Float[Array, "... Z"],
    center: Float[Array, " Z"],
    variance: Float[Array, " Z"],
    scale: float,
) -> Float[Array, "... Z"]:
    """Posterior means with mean 0 and a fixed standard deviation over the texts (BN-VAE, Zhu et al. 2020, 2004.12585,
    section 3.2), so that the divergence is at least Z * scale^2 / 2 on average. Without their learned shift."""
    return scale * (means - center) * jax.lax.rsqrt(variance + 1e-5)


def hide_words(
    tokens: Int[Array, "B T"], may_hide: Bool[Array, "B T"], rate: float, hidden_id: int, key: Array
) -> Int[Array, "B T"]:
    """Each token is replaced with this probability (word dropout, Bowman et al. 2016, 1511.06349, section 3.1)."""
    drop = jax.random.bernoulli(key, rate, tokens.shape) & may_hide
    return jnp.where(drop, hidden_id, tokens)


def importance_bound(log_weights: Float[Array, "K N"]) -> Float[Array, " N"]:
    """Lower bound of log p(x) from K samples (Burda et al. 2016, 1509.00519, equation 8).

    log mean of p(x, z) / q(z | x), where z is sampled from q.
    """
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def mutual_information(
    posterior: Gaussian, z: Float[Array, "N Z"], chunk: int = 256
) -> Float[Array, ""]:
    """Estimate of the information that the latent has about which of N texts it is of; at most log N.

    mean of log q(z_n | x_n) - log mean over m of q(z_n | x_m), with a sample z_n for each text (Hoffman and Johnson
    2016).
    """
    count = z.shape[0]
    own = log_density(z, posterior)

    def aggregate(piece):
        densities = log_density(piece[None], Gaussian(*(x[:, None] for x in posterior)))
        return jax.nn.logsumexp(densities, axis=0) - math.log(count)

    # one text at a time in each of the chunks, so that only [N, chunk, Z] exists at once
    pieces = [aggregate(z[i : i + chunk]) for i in range(0, count, chunk)]
    return (own - jnp.concatenate(pieces)).mean()


def moments(
    x: Float[Array, "N Z"], counts: Float[Array, " N"]
) -> tuple[Float[Array, "2 Z"], Float[Array, "3 Z"]]:
    """The sum of the rows that count, and that of their squares, as terms to be added in float64.

    In float32 the variance would be lost where the mean is large beside it. The terms are about a center of 8 bits, so
    that what is large in them is exact for up to 65,536 rows; such terms may be added up over batches.
    """
    count = counts.sum()
    mean = (x * counts[:, None]).sum(0) / jnp.maximum(count, 1)
    # not a cast to bfloat16 and back, which XLA may leave out
    short = lambda value: jax.lax.reduce_precision(value, exponent_bits=8, mantissa_bits=7)
    center = short(mean)
    high = short(jnp.square(center))
    low = jnp.square(center) - high
    rest = (x - center) * counts[:, None]
    of_rest = 2 * center * rest.sum(0) + jnp.square(rest).sum(0)
    return (
        jnp.stack([count * center, rest.sum(0)]),
        jnp.stack([count * high, count * low, of_rest]),
    )


def active_units(variance_of_means: Float[Array, " Z"]) -> Float[Array, ""]:
    """Number of dims whose posterior mean varies over the data."""
    return (variance_of_means >= ACTIVE_VARIANCE).sum()


def interpolate(
    a: Float[Array, " Z"], b: Float[Array, " Z"], steps: int
) -> Float[Array, "steps Z"]:
    """Points on the arc from a to b (spherical interpolation, Shoemake 1985), whose lengths go from a's to b's.

    High-dimensional Gaussians have hardly any mass near the origin, which a straight line would approach. Vectors of
    one direction, and opposite ones, which no single arc joins, are joined by the straight line.
    """
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    lengths = jnp.linalg.norm(a), jnp.linalg.norm(b)
    units = [x / jnp.maximum(length, 1e-12) for x, length in zip((a, b), lengths)]
    angle = jnp.arccos(jnp.clip(jnp.vdot(*units), -1, 1))
    safe = jnp.maximum(jnp.sin(angle), 1e-6)
    arc = (jnp.sin((1 - t) * angle) * units[0] + jnp.sin(t * angle) * units[1]) / safe
    line = (1 - t) * a + t * b
    return jnp.where(jnp.sin(angle) < 1e-4, line, arc * ((1 - t) * lengths[0] + t * lengths[1]))
