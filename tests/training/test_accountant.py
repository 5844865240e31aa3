"""The accountant against closed forms and against values published elsewhere."""

import math

import pytest
from scipy.stats import binom, norm

from jaxlm.training import accountant


def analytic_delta(epsilon: float, noise: float) -> float:
    """Delta of one Gaussian query of sensitivity 1 (Balle and Wang 2018, 1805.06530, theorem 8)."""
    a, b = 1 / (2 * noise), epsilon * noise
    return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b)


def test_one_full_batch_is_the_analytic_gaussian():
    for noise, delta in ((1.0, 1e-5), (4.0, 1e-3)):
        found = accountant.epsilon(noise, 1.0, 1, delta)
        assert analytic_delta(found, noise) == pytest.approx(delta, rel=0.02)
        # n queries are one with noise / sqrt(n)
        several = accountant.epsilon(noise * 3, 1.0, 9, delta)
        assert several == pytest.approx(found, rel=1e-3)


def test_the_noise_of_a_budget():
    """jax_privacy 2.0.0's example: epsilon 8, delta 1e-5, 100 steps that draw a sixteenth of the data, noise 0.756."""
    noise = accountant.noise_multiplier(8.0, 1e-5, 1 / 16, 100)
    assert noise == pytest.approx(0.756, abs=0.0015)
    spent = accountant.epsilon(noise, 1 / 16, 100, 1e-5)
    assert 7.97 < spent <= 8
    assert accountant.epsilon(noise, 1 / 16, 50, 1e-5) < spent
    assert accountant.epsilon(noise, 1 / 16, 0, 1e-5) == 0


def test_a_budget_that_no_noise_keeps_is_refused():
    with pytest.raises(ValueError, match="no noise keeps 10 steps within that budget"):
        accountant.noise_multiplier(1e-7, 1e-12, 1.0, 10)


def test_room_is_enough_but_for_a_part_of_delta():
    room = accountant.room(1000, 0.05, 200, 8.0, 1e-5)
    p = 200 * binom.sf(room, 1001, 0.05)
    assert (1 + math.exp(8)) * p <= accountant.OVERFLOW * 1e-5
    assert 50 < room < 200
    assert accountant.room(10, 1.0, 5, 8.0, 1e-5) == 10
    assert accountant.room(10, 0.9, 10**6, 700.0, 1e-9) == 10
