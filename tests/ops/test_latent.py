"""The formulas of variational autoencoders against NumPy in float64, samples, and limits that are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import latent
from jaxlm.ops.latent import Gaussian

N, Z = 6, 4
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(N, Z))
LOG_VARIANCE = RNG.normal(size=(N, Z))
POSTERIOR = Gaussian(jnp.float32(MEAN), jnp.float32(LOG_VARIANCE))


def density(z, mean, log_variance):
    """Log-density of a Gaussian in float64, summed over the last dim."""
    variance = np.exp(log_variance)
    by_dim = -np.square(z - mean) / (2 * variance) - np.log(np.sqrt(2 * np.pi * variance))
    return by_dim.sum(-1)


def log_mean_exp(x, axis):
    """log of the mean of exp(x), in float64."""
    top = x.max(axis)
    return top + np.log(np.exp(x - np.expand_dims(top, axis)).mean(axis))


def test_samples_have_the_mean_and_the_spread_of_the_posterior():
    count = 20_000
    wide = Gaussian(*(jnp.broadcast_to(x[0], (count, Z)) for x in POSTERIOR))
    z = np.asarray(latent.sample(wide, jax.random.key(0)))
    spread = np.exp(0.5 * LOG_VARIANCE[0])
    error = spread / np.sqrt(count)
    assert (np.abs(z.mean(0) - MEAN[0]) < 4 * error).all()
    # the standard error of a standard deviation
    assert (np.abs(z.std(0) - spread) < 4 * error / np.sqrt(2)).all()


def test_log_density_equals_the_formula():
    z = RNG.normal(size=(N, Z))
    got = latent.log_density(jnp.float32(z), POSTERIOR)
    np.testing.assert_allclose(got, density(z, MEAN, LOG_VARIANCE), rtol=1e-5)


def test_divergence_equals_the_formula_of_the_paper():
    # Kingma and Welling 2014, appendix B: -KL = 1/2 sum(1 + log s^2 - m^2 - s^2)
    variance = np.exp(LOG_VARIANCE)
    want = -0.5 * (1 + np.log(variance) - MEAN**2 - variance)
    got = latent.kl_to_standard_normal(POSTERIOR)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    zero = latent.kl_to_standard_normal(Gaussian(jnp.zeros(Z), jnp.zeros(Z)))
    np.testing.assert_array_equal(zero, 0)


def test_divergence_equals_an_estimate_from_samples():
    count = 10_000
    noise = np.random.default_rng(1).normal(size=(count, N, Z))
    z = MEAN + np.exp(0.5 * LOG_VARIANCE) * noise
    estimates = density(z, MEAN, LOG_VARIANCE) - density(z, 0.0, np.zeros(Z))
    error = estimates.std(0) / np.sqrt(count)
    got = latent.kl_to_standard_normal(POSTERIOR).sum(-1)
    assert (np.abs(estimates.mean(0) - got) < 3 * error).all()


# means over the texts that count, by dim: 0.2, 1.0, 3.0; in all 4.2
KL = np.float32([[0.1, 1.5, 2.0], [0.3, 0.5, 4.0], [9.0, 9.0, 9.0]])
COUNTS = np.float32([1, 1, 0])


@pytest.mark.parametrize(
    ("per", "minimum", "mean", "trained"),
    [
        # none is below the minimum: the plain sum
        ("dimension", 0.1, 0.2 + 1.0 + 3.0, [1, 1, 1]),
        ("dimension", 0.5, 0.5 + 1.0 + 3.0, [0, 1, 1]),
        ("dimension", 2.0, 2.0 + 2.0 + 3.0, [0, 0, 1]),
        ("dimension", 5.0, 5.0 * 3, [0, 0, 0]),
        ("total", 4.0, 4.2, [1, 1, 1]),
        ("total", 5.0, 5.0, [0, 0, 0]),
    ],
)
def test_free_bits_have_no_gradient_below_their_minimum(per, minimum, mean, trained):
    def loss(kl):
        return latent.free_bits(kl, COUNTS, minimum, per)

    value, gradient = jax.value_and_grad(loss)(KL)
    np.testing.assert_allclose(value, 2 * mean, rtol=1e-6)
    np.testing.assert_allclose(gradient, COUNTS[:, None] * np.float32(trained), rtol=1e-6)


@pytest.mark.parametrize("per", ["dimension", "total"])
def test_free_bits_of_no_text_are_zero(per):
    assert latent.free_bits(KL, np.zeros(3, np.float32), 1.0, per) == 0


def test_importance_bound_equals_the_log_of_the_mean_weight():
    # weights that overflow when they are not kept as logarithms
    weights = RNG.normal(size=(5, N)) * 30 + np.linspace(-900, 900, N)
    got = latent.importance_bound(jnp.float32(weights))
    np.testing.assert_allclose(got, log_mean_exp(np.float32(weights).astype(float), 0), rtol=1e-6)


def test_importance_bound_rises_with_the_samples_to_the_likelihood_and_not_above():
    # z ~ N(0, 1), x ~ N(z, 0.5): then log p(x) is that of N(0, 1.5), and z given x is N(x / 1.5, 1 / 3)
    x, mean, variance, repeats = 1.3, 0.3, 0.8, 4000
    truth = density(np.array([x]), 0.0, np.log([1.5]))
    rng = np.random.default_rng(2)
    bounds = {}
    for samples in (1, 2, 5, 20):
        z = mean + np.sqrt(variance) * rng.normal(size=(samples, repeats, 1))
        weights = (
            density(z, 0.0, np.zeros(1))
            + density(x - z, 0.0, np.log([0.5]))
            - density(z, mean, np.log([variance]))
        )
        got = np.asarray(latent.importance_bound(jnp.float32(weights)))
        bounds[samples] = got.mean(), got.std() / np.sqrt(repeats)
    values = [value for value, _ in bounds.values()]
    assert values == sorted(values)
    assert values[-1] < truth
    # 20 samples close nearly all of the gap that one leaves
    assert truth - values[-1] < 0.1 * (truth - values[0])
    # the gap of one sample is the divergence from the true posterior
    ratio, shift = variance * 3, (mean - x / 1.5) ** 2 * 3
    gap = 0.5 * (ratio + shift - 1 - np.log(ratio))
    value, error = bounds[1]
    assert abs(value - (truth - gap)) < 3 * error


@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_mutual_information_equals_the_definition(chunk):
    z = MEAN + np.exp(0.5 * LOG_VARIANCE) * RNG.normal(size=(N, Z))
    by_pair = density(z[:, None], MEAN, LOG_VARIANCE)  # [n, m]: z_n under the posterior of m
    want = np.mean(np.diagonal(by_pair) - log_mean_exp(by_pair, 1))
    assert 0.3 < want < 0.9 * math.log(N)
    got = latent.mutual_information(POSTERIOR, jnp.float32(z), chunk)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("apart", "want"), [(0.0, 0.0), (100.0, math.log(N))], ids=["equal", "separate"]
)
def test_mutual_information_is_from_zero_to_the_log_of_the_texts(apart, want):
    means = apart * jnp.arange(N, dtype=jnp.float32)[:, None] * jnp.ones(Z)
    posterior = Gaussian(means, jnp.zeros((N, Z)))
    z = latent.sample(posterior, jax.random.key(0))
    np.testing.assert_allclose(latent.mutual_information(posterior, z), want, atol=1e-5)


def test_active_units_are_those_whose_mean_varies():
    assert latent.active_units(jnp.float32([0.0, 0.0099, 0.0101, 2.0])) == 2


def test_moments_keep_a_small_variance_beside_a_large_mean():
    rng = np.random.default_rng(3)
    spreads = np.array([0.0, 0.05, 0.15, 3.0, 0.05, 0.15])
    shifts = np.array([1000.0, 1000.0, -1000.0, 0.0, 333.3, 50.1])
    x = (rng.normal(size=(2, 300, 6)) * spreads + shifts).astype(np.float32)
    counts = np.float32(np.arange(300) < 270)
    # sums of two batches, whose means differ
    x[1, :, 2] += 0.2
    of_batches = [jax.device_get(jax.jit(latent.moments)(batch, counts)) for batch in x]
    mean, square = (np.sum(np.float64(terms), (0, 1)) / 540 for terms in zip(*of_batches))
    real = np.float64(x[:, counts > 0]).reshape(540, 6)
    np.testing.assert_allclose(mean, real.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(square - mean**2, real.var(0), rtol=1e-3, atol=1e-3)
    assert latent.active_units(square - mean**2) == 3
    # no text at all
    assert not any(np.any(terms) for terms in latent.moments(x[0], 0 * counts))


A, B = RNG.normal(size=(2, 8)).astype(np.float32) * np.float32([[1], [3]])


@pytest.mark.parametrize(
    ("a", "b"),
    [(A, B), (A, A), (A, 2 * A), (A, -A), (A, 0 * A)],
    ids=["different", "equal", "parallel", "opposite", "zero"],
)
def test_interpolation_ends_at_its_points_and_is_finite(a, b):
    points = np.asarray(latent.interpolate(a, b, 5))
    assert points.shape == (5, 8)
    np.testing.assert_allclose(points[0], a, atol=1e-5)
    np.testing.assert_allclose(points[-1], b, atol=1e-5)
    assert np.isfinite(points).all()


def test_points_of_one_direction_or_of_opposite_ones_are_joined_by_the_straight_line():
    t = np.linspace(0, 1, 5)[:, None]
    for b in (2 * A, -A, -3 * A):
        np.testing.assert_allclose(latent.interpolate(A, b, 5), (1 - t) * A + t * b, atol=1e-5)


def test_interpolation_of_equal_points_stays_there():
    np.testing.assert_allclose(latent.interpolate(A, A, 5), np.tile(A, (5, 1)), atol=1e-6)


def test_lengths_and_angles_of_an_interpolation_change_evenly():
    points = np.asarray(latent.interpolate(A, B, 7), float)
    lengths = np.linalg.norm(points, axis=1)
    ends = np.linalg.norm([A, B], axis=1)
    np.testing.assert_allclose(lengths, np.linspace(*ends, 7), rtol=1e-5)
    units = points / lengths[:, None]
    steps = np.arccos((units[1:] * units[:-1]).sum(1))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
