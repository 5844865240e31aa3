"""How much noise a privacy budget needs, and what of the budget is spent, from the package dp-accounting.

The mechanism is the Poisson-sampled Gaussian, composed over the steps and accounted for by its privacy loss
distribution (Koskela et al. 2020, 1906.03049; Doroshenko et al. 2022, 2207.04380). Neighbouring data sets differ by
one unit that is added or removed.
"""

from __future__ import annotations

import functools
import math

import numpy as np

# part of delta that is kept for the event that a batch has more units than there is room for
OVERFLOW = 1e-3
# relative precision of the noise multiplier, which is rounded up
_TOLERANCE = 1e-3
# of the privacy loss, which is rounded up; 1e-4, the default of dp-accounting, takes ten times as long and gives 0.05 %
# less
_INTERVAL = 1e-3
# more noise than any use has
_MOST_NOISE = 1e4


@functools.lru_cache(maxsize=256)
def epsilon(noise: float, probability: float, steps: int, delta: float) -> float:
    """The epsilon that `steps` steps spend at most.

    Args:
        noise: standard deviation of the noise, divided by the norm to which gradients are clipped.
        probability: with which a unit takes part in a step.
        steps: number of steps.
        delta: probability with which epsilon may be exceeded.
    """
    if steps == 0:
        return 0.0
    one = _distributions().from_gaussian_mechanism(
        noise, sampling_prob=probability, value_discretization_interval=_INTERVAL
    )
    return float(one.self_compose(steps).get_epsilon_for_delta(delta * (1 - OVERFLOW)))


@functools.lru_cache(maxsize=64)
def noise_multiplier(budget: float, delta: float, probability: float, steps: int) -> float:
    """The least noise (see `epsilon`), to a thousandth, with which `steps` steps stay within the budget.

    Raises:
        ValueError: no noise is enough.
    """
    spends = lambda noise: epsilon(noise, probability, steps, delta)
    low, high = 0.0, 1.0
    while not spends(high) <= budget:
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise ValueError(
                f"privacy.epsilon={budget:g} at privacy.delta={delta:g}: no noise keeps {steps:,} steps within that "
                "budget: raise epsilon or delta, or lower steps"
            )
    if not low:
        low = high
        while spends(low) <= budget and low > _TOLERANCE:
            low, high = low / 2, low
    while high / low > 1 + _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spends(middle) <= budget else (middle, high)
    return high


def room(units: int, probability: float, steps: int, budget: float, delta: float) -> int:
    """Units that a batch needs room for, so that in no step of the run any is left out, but with a probability p so
    small that (1 + e^budget) p is within the part of delta that is kept for it.

    A run that leaves some out differs from one that does not by at most p in total variation, for each of two
    neighbouring data sets: delta grows by (1 + e^epsilon) p.
    """
    if probability >= 1:
        return units
    from scipy.stats import binom

    # in logarithms, because e^epsilon may overflow
    log_p = math.log(OVERFLOW * delta / steps) - np.logaddexp(0, budget)
    # of one unit more, for the neighbour that has it
    most = binom.isf(max(math.exp(log_p), 1e-300), units + 1, probability)
    return min(int(most), units)


def version() -> str:
    """Name and version of the accountant."""
    from importlib import metadata

    return f"dp-accounting {metadata.version('dp-accounting')}, privacy loss distribution"


def _distributions():
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError as e:
        raise ValueError(
            "privacy.epsilon needs the package dp-accounting: pip install 'jaxlm[privacy]'"
        ) from e
    return privacy_loss_distribution
