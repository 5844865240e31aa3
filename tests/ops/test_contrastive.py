"""Losses of vectors against their definitions, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.ops import contrastive

RNG = np.random.default_rng(0)
ROWS, D = 8, 6
VECTORS = RNG.normal(size=(ROWS, 3, D)).astype(np.float32)
# text, pair, negative, class: rows 0 and 3 share the first text, 1 and 4 the second, 2 and 5 the class; the negative of
# row 6 is the second text of row 0; the first text of row 4 is the second one of row 7
TEXTS = np.array([[10 * i, 10 * i + 1, 10 * i + 2, 10 * i + 3] for i in range(ROWS)])
TEXTS[3, 0], TEXTS[4, 1], TEXTS[5, 3], TEXTS[6, 2] = 0, 11, 23, 1
TEXTS[4, 0] = TEXTS[7, 1]
WEIGHTS = np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def definition(vectors, texts, sides, temperature, symmetric):
    """-log of the row's share among the candidates that count, one row at a time in float64."""
    v = unit(vectors.astype(np.float64))
    real = [i for i in range(ROWS) if WEIGHTS[i]]

    def related(i, j):
        first, second, group = (texts[:, 0], texts[:, 1], texts[:, -1])
        return first[i] == first[j] or second[i] == second[j] or group[i] == group[j]

    forward = backward = 0.0
    for i in real:
        own = {texts[i, 0], texts[i, 1]}
        wrong = [
            v[j, 1]
            for j in real
            if j != i
            and not related(i, j)
            and texts[j, 1] not in own
            and texts[j, 0] != texts[i, 1]
        ]
        back = [
            v[j, 0]
            for j in real
            if j != i
            and not related(i, j)
            and texts[j, 0] not in own
            and texts[j, 1] != texts[i, 0]
        ]
        if sides == 3:
            wrong += [v[j, 2] for j in real if texts[j, 2] not in own]
        score = lambda a, others: (
            -np.log(
                np.exp(a @ others[0] / temperature)
                / sum(np.exp(a @ other / temperature) for other in others)
            )
        )
        forward += score(v[i, 0], [v[i, 1], *wrong])
        backward += score(v[i, 1], [v[i, 0], *back])
    return (forward + backward) / 2 if symmetric else forward


@pytest.mark.parametrize("sides", [2, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_in_batch_negatives_without_false_ones(sides, symmetric):
    texts = np.delete(TEXTS, 2, axis=1) if sides == 2 else TEXTS
    options = dict(temperature=0.3, symmetric=symmetric)
    got = contrastive.in_batch(VECTORS[:, :sides], texts, WEIGHTS, **options)
    want = definition(VECTORS, texts, sides, 0.3, symmetric)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # with false negatives the loss is another
    other = np.arange(ROWS * (sides + 1)).reshape(ROWS, sides + 1)
    assert abs(contrastive.in_batch(VECTORS[:, :sides], other, WEIGHTS, **options) - want) > 0.1


def test_a_row_that_fills_up_the_batch_changes_nothing():
    grad = jax.grad(
        lambda v: contrastive.in_batch(v, TEXTS, WEIGHTS, temperature=0.3, symmetric=True)
    )
    np.testing.assert_array_equal(grad(VECTORS)[7], 0)
    assert np.abs(grad(VECTORS)[:7]).max() > 0.01


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_negatives_are_those_of_the_whole_batch_on_any_number_of_devices(devices):
    loss = jax.jit(
        jax.value_and_grad(
            lambda v, t: contrastive.in_batch(v, t, WEIGHTS, temperature=0.3, symmetric=True)
        )
    )
    want, want_gradient = loss(VECTORS, TEXTS)
    mesh = sharding.make_mesh(MeshConfig(data=devices), jax.devices()[:devices])
    with jax.set_mesh(mesh):
        place = lambda x: jax.device_put(
            x, jax.NamedSharding(mesh, sharding.spec("batch", *[None] * (x.ndim - 1)))
        )
        got, gradient = loss(place(VECTORS), place(TEXTS))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-6)


def test_cosent_is_the_sum_over_pairs_in_the_wrong_order():
    cosines = RNG.uniform(-1, 1, ROWS).astype(np.float32)
    targets = np.array([1, 1, 2, 3, 5, 4, 0, 9], np.float32)
    got = contrastive.cosent(cosines, targets, WEIGHTS, temperature=0.05)
    total = 1.0
    for i in range(7):
        for j in range(7):
            if targets[i] > targets[j]:
                total += np.exp(20.0 * (float(cosines[j]) - float(cosines[i])))
    np.testing.assert_allclose(got, np.log(total), rtol=1e-5)


def test_the_squared_error_of_cosines():
    cosines = contrastive.cosine(VECTORS[:, 0], VECTORS[:, 1])
    want = (unit(VECTORS[:, 0]) * unit(VECTORS[:, 1])).sum(-1)
    np.testing.assert_allclose(cosines, want, atol=1e-6)
    got = contrastive.cosine_squared_error(cosines, np.zeros(ROWS), WEIGHTS)
    np.testing.assert_allclose(got, (want[:7] ** 2).sum(), rtol=1e-5)


def test_a_vector_of_zeros_has_no_direction_and_a_finite_gradient():
    zeros = jnp.zeros((2, 3))
    np.testing.assert_array_equal(contrastive.unit(zeros), 0)
    assert np.isfinite(jax.grad(lambda x: contrastive.unit(x).sum())(zeros)).all()
