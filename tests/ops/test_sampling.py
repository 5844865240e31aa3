"""Which tokens sampling keeps, against sorting in float64, and what it then draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import sampling

ROWS, VOCAB = 64, 200


def kept(logits, top_k, top_p, min_p):
    """The definition: sort, cut at k, at the sum p, and below min_p times the best."""
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits.astype(np.float64) - logits.max())
    best = order[:top_k]
    share = weights[best] / weights[best].sum()
    if top_p < 1:
        best = best[: max(1, int((np.cumsum(share) - share < top_p).sum()))]
    return {int(i) for i in best if weights[i] >= min_p * (1 - 1e-6)} | {int(order[0])}


def test_the_likely_tokens_are_kept():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, VOCAB)) * rng.uniform(0.1, 5, (ROWS, 1))
    logits = logits.astype(np.float32)
    logits[:, 150:160] = -np.inf
    top_k = rng.choice([1, 5, 50, VOCAB, 2**30], ROWS).astype(np.int32)
    top_p = rng.choice([0.0, 0.1, 0.5, 0.9, 0.99, 1.0], ROWS).astype(np.float32)
    min_p = rng.choice([0.0, 0.05, 0.5, 1.0], ROWS).astype(np.float32)
    got = np.asarray(jax.jit(sampling.keep_likely)(logits, top_k, top_p, min_p))
    for row in range(ROWS):
        want = kept(logits[row], top_k[row], top_p[row], min_p[row])
        is_kept = got[row] > -np.inf
        assert set(np.flatnonzero(is_kept)) == {i for i in want if logits[row, i] > -np.inf}
        np.testing.assert_array_equal(got[row][is_kept], logits[row][is_kept])


def test_tokens_as_likely_as_a_kept_one_are_kept():
    logits = jnp.array([[1.0, 2.0, 2.0, 0.0]])
    assert jnp.isfinite(sampling.keep_likely(logits, 1, 1.0, 0.0)).tolist() == [
        [False, True, True, False]
    ]


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (dict(top_k=2), {0, 1}),
        (dict(top_p=0.7), {0, 1}),
        (dict(temperature=0.0), {0}),
        ({}, {0, 1, 2}),
    ],
)
def test_tokens_are_drawn_by_their_probabilities(given, allowed):
    probabilities = np.array([0.5, 0.3, 0.2])
    logits = jnp.log(jnp.tile(probabilities, (4000, 1)))
    got = np.asarray(sampling.sample(jax.random.key(0), logits, **given))
    want = np.where(np.isin(np.arange(3), list(allowed)), probabilities, 0)
    counts = np.bincount(got, minlength=3) / 4000
    # five standard deviations
    np.testing.assert_allclose(counts, want / want.sum(), atol=5 * 0.5 / 4000**0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(temperature=-1.0), "temperature=-1.0 must not be negative"),
        (dict(top_k=0), "top_k=0 must be at least 1"),
        (dict(top_p=0.0), r"top_p=0.0 is not in \(0, 1\]"),
        (dict(top_p=1.5), "top_p=1.5 is not in"),
    ],
)
def test_settings_that_leave_nothing_to_choose_from_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        sampling.sample(jax.random.key(0), jnp.zeros((1, 4)), **settings)
