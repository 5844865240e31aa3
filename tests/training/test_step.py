"""The training step on a task so small that the correct results are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import one_phase

from jaxlm.tasks import Loss
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step

PARAMS = {"kernel": jnp.arange(3.0)}
PHASE = one_phase(PARAMS, learning_rate=0.1, schedule="constant", clip_norm=0.0)


def loss(params, batch, context):
    each = jnp.square(batch["x"] @ params["kernel"] - batch["y"]) * batch["weights"]
    return Loss(each.sum(), batch["weights"].sum(), {"twice": (2 * each.sum(), jnp.float32(1))})


def make_batch(seed=0, rows=8):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, 3)), rng.normal(size=rows)
    weights = np.array([1, 1, 0, 1, 1, 1, 0, 1.0][:rows])
    return {k: jnp.asarray(v, jnp.float32) for k, v in {"x": x, "y": y, "weights": weights}.items()}


def start():
    return TrainState(jnp.int32(0), PARAMS, PHASE.init(PARAMS))


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_gradient_is_that_of_the_weighted_mean(accumulate):
    batch = make_batch()
    x, y, w = (np.asarray(batch[k], np.float64) for k in ("x", "y", "weights"))
    error = x @ np.arange(3.0) - y
    gradient = 2 * (x.T @ (error * w)) / w.sum()
    state, metrics = jax.jit(make_train_step(loss, PHASE, seed=0, accumulate=accumulate))(
        start(), batch
    )
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-5)
    total, weight = metrics["sums"]["means"]["loss"]
    np.testing.assert_allclose(total / weight, (error**2 * w).sum() / w.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["sums"]["means"]["twice"], (2 * total, accumulate))
    # the first update of Adam is the sign of the gradient
    np.testing.assert_allclose(
        state.params["kernel"], PARAMS["kernel"] - 0.1 * np.sign(gradient), rtol=1e-4
    )


def test_a_non_finite_step_changes_nothing_and_is_reported():
    step = jax.jit(make_train_step(loss, PHASE, seed=0))
    before, _ = step(start(), make_batch(0))
    bad = make_batch(1)
    bad["x"] = bad["x"].at[0, 0].set(jnp.nan)
    after, metrics = step(before, bad)
    assert metrics["skipped"] == 1
    assert after.step == 2
    for a, b in zip(
        jax.tree.leaves((before.params, before.opt_state)),
        jax.tree.leaves((after.params, after.opt_state)),
    ):
        np.testing.assert_array_equal(a, b)
    again, metrics = step(after, make_batch(2))
    assert metrics["skipped"] == 0
    assert bool(jnp.any(again.params["kernel"] != after.params["kernel"]))


def test_the_key_depends_on_seed_and_step_alone():
    def noisy(params, batch, context):
        return Loss(jax.random.normal(context.key) * params["kernel"].sum(), jnp.float32(1))

    def value(seed, number):
        state = TrainState(jnp.int32(number), PARAMS, PHASE.init(PARAMS))
        step = jax.jit(make_train_step(noisy, PHASE, seed=seed))
        return float(step(state, make_batch())[1]["sums"]["means"]["loss"][0])

    assert value(0, 3) == value(0, 3)
    assert len({value(0, 3), value(0, 4), value(1, 3)}) == 3


def test_a_batch_without_any_weight_changes_nothing():
    batch = make_batch()
    batch["weights"] = jnp.zeros(8)
    state, metrics = jax.jit(make_train_step(loss, PHASE, seed=0))(start(), batch)
    assert metrics["grad_norm"] == 0
    np.testing.assert_array_equal(state.params["kernel"], PARAMS["kernel"])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_task_state_is_passed_between_parts_of_a_batch_and_between_steps(accumulate):
    def counting(params, batch, context):
        return loss(params, batch, context)._replace(state=context.state + batch["x"].shape[0])

    step = jax.jit(make_train_step(counting, PHASE, seed=0, accumulate=accumulate))
    state = TrainState(jnp.int32(0), PARAMS, PHASE.init(PARAMS), jnp.int32(0))
    for expected in (8, 16):
        state, _ = step(state, make_batch())
        assert state.task_state == expected
    # a step that is skipped leaves it as it was
    bad = make_batch()
    bad["x"] = bad["x"].at[0, 0].set(jnp.nan)
    assert step(state, bad)[0].task_state == 16
