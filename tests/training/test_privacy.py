"""The mechanism of private training on a task so small that the correct results are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import one_phase

from jaxlm.tasks import Loss
from jaxlm.training.privacy import Mechanism, add_noise, clipped_sum
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step

PARAMS = {"kernel": jnp.arange(3.0)}
PHASE = one_phase(PARAMS, learning_rate=0.1, schedule="constant", clip_norm=0.0, name="sgd", b1=0)
CLIP = 2.0


def task_loss(params, batch, context):
    """Squared errors, the sum over rows of a unit and their weight."""
    each = jnp.square(batch["x"] @ params["kernel"] - batch["y"]) * batch["valid"]
    return Loss(each.sum(), batch["valid"].sum())


def unit_loss(params, rows, key):
    loss = task_loss(params, rows, None)
    return loss.total / jnp.maximum(loss.weight, 1e-6), {"loss": loss.total}


def make_batch(valid=(1, 1, 0, 1, 1, 1, 0, 1), rows=2):
    """Slots with units of one or two rows; slots and rows that are not there hold NaN."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, rows, 3)), rng.normal(size=(8, rows))
    exists = np.ones((8, rows))
    exists[3, 1:] = 0
    x[np.array(valid) == 0] = np.nan
    arrays = {"x": x, "y": y, "exists": exists, "valid": np.array(valid)}
    return {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()}


def by_hand(batch):
    """The sum of the clipped gradients, one unit after another."""
    total = np.zeros(3)
    for x, y, exists, valid in zip(*(np.asarray(batch[k], float) for k in batch)):
        if not valid:
            continue
        x, y = x[exists > 0], y[exists > 0]
        gradient = 2 * x.T @ (x @ np.arange(3.0) - y) / len(y)
        total += gradient * min(1, CLIP / np.linalg.norm(gradient))
    return total


def clipped(batch, microbatch):
    options = dict(clip=CLIP, microbatch=microbatch)
    run = jax.jit(lambda b: clipped_sum(unit_loss, PARAMS, b, jax.random.key(0), **options))
    return run(batch)


@pytest.mark.parametrize("microbatch", [1, 2, 8])
def test_the_sum_is_that_of_single_units_clipped_one_by_one(microbatch):
    """Whatever the microbatch; what only fills up slots and units counts for nothing, NaN or not."""
    # in slots as they are filled: microbatch m has the slots m, m + parts, ...
    parts = 8 // microbatch
    order = [m * parts + a for a in range(parts) for m in range(microbatch)]
    batch = make_batch()
    present = sorted(range(8), key=lambda i: -float(batch["valid"][i]))
    source = np.zeros(8, int)
    source[order] = present
    total, sums = clipped({k: v[source] for k, v in batch.items()}, microbatch)
    np.testing.assert_allclose(total["kernel"], by_hand(batch), rtol=1e-5)
    assert sums["units"]["drawn"] == 6
    assert 0 < sums["units"]["clipped"] < 6


def test_no_unit_weighs_more_than_the_clip_and_a_bad_one_nothing():
    batch = make_batch(valid=(1, 0, 0, 0, 0, 0, 0, 0))
    batch["x"] = batch["x"].at[0].mul(1e4)
    total, _ = clipped(batch, 1)
    np.testing.assert_allclose(np.linalg.norm(total["kernel"]), CLIP, rtol=1e-5)
    batch["x"] = batch["x"].at[0, 0, 0].set(jnp.inf)
    total, sums = clipped(batch, 1)
    np.testing.assert_array_equal(total["kernel"], 0)
    assert sums["units"]["clipped"] == 1


def test_an_empty_slot_counts_for_nothing_even_if_the_loss_does_not_ask():
    batch = make_batch()
    batch = {k: jnp.where(jnp.isnan(v), 1.0, v) for k, v in batch.items()}
    careless = lambda params, rows, key: (jnp.square(rows["x"] @ params["kernel"]).sum(), {})
    # the second microbatch of four has the slots 1, 3, 5, 7
    run = lambda valid: clipped_sum(
        careless, PARAMS, {**batch, "valid": valid}, jax.random.key(0), clip=CLIP, microbatch=4
    )
    total, sums = jax.jit(run)(jnp.array([1, 1, 1, 0, 1, 0, 1, 0.0]))
    less, _ = jax.jit(run)(jnp.array([1, 0, 1, 0, 1, 0, 1, 0.0]))
    one, _ = jax.grad(careless, has_aux=True)(PARAMS, {"x": batch["x"][1]}, None)
    expected = one["kernel"] * min(1, CLIP / float(jnp.linalg.norm(one["kernel"])))
    np.testing.assert_allclose(total["kernel"] - less["kernel"], expected, atol=1e-5)
    assert sums["units"]["drawn"] == 5


def test_the_noise_has_its_scale():
    tree = {"a": jnp.zeros((300, 300)), "b": jnp.ones(30000)}
    noised = add_noise(tree, jax.random.key(3), 2.5)
    values = np.concatenate([noised["a"].ravel(), noised["b"] - 1])
    # 120,000 numbers: the standard error of their deviation is 0.2 %
    assert abs(values.std() / 2.5 - 1) < 0.01
    assert abs(values.mean()) < 0.03
    assert abs(np.corrcoef(values[:30000], values[90000:])[0, 1]) < 0.03


def test_a_step_is_the_noised_sum_over_the_expected_batch():
    mechanism = Mechanism(clip=CLIP, noise=0.5, expected=10.0, microbatch=8, secret=7)
    step = jax.jit(make_train_step(task_loss, PHASE, seed=0, mechanism=mechanism))
    batch = make_batch()
    rate = 0.1

    def update(number, batch=batch, step=step):
        state = TrainState(jnp.int32(number), PARAMS, PHASE.init(PARAMS))
        after, metrics = step(state, batch)
        assert metrics["skipped"] == 0
        return np.asarray((PARAMS["kernel"] - after.params["kernel"]) / rate) * 10

    # an empty batch has the noise alone, which depends on the step
    empty = {**batch, "valid": jnp.zeros(8)}
    noise = update(4, empty)
    np.testing.assert_allclose(update(4) - noise, by_hand(batch), rtol=1e-3, atol=1e-4)
    assert np.abs(update(5, empty) - noise).min() > 1e-3
    other = jax.jit(
        make_train_step(
            task_loss, PHASE, seed=0, mechanism=Mechanism(CLIP, 0.5, 10.0, 8, 7 + 2**40)
        )
    )
    assert np.abs(update(4, empty, other) - noise).min() > 1e-3
    many = np.concatenate([update(i, empty) for i in range(400)])
    assert abs(many.std() / (CLIP * 0.5) - 1) < 0.06
