"""Training and evaluation steps, as pure functions of state and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.ops import moe
from jaxlm.params import path_name
from jaxlm.sharding import constrain
from jaxlm.tasks.task import Context, Loss, loss_sums
from jaxlm.training.phases import Phase
from jaxlm.training.privacy import Mechanism
from jaxlm.training.state import TrainState

LossFunction = Callable[[Any, dict, Context], Loss]


def make_train_step(
    loss: LossFunction,
    phase: Phase,
    *,
    seed: int,
    accumulate: int = 1,
    turn: int = 0,
    mechanism: Mechanism | None = None,
) -> Callable[[TrainState, dict, Any], tuple[TrainState, dict[str, Any]]]:
    """The step (state, batch, reference) -> (state, metrics), to be jitted with the state donated.

    The gradient is that of the summed loss with respect to the trained parameters, divided once by the weight of the
    whole batch. The random key is a function of seed and step. A step whose loss or gradient is not finite does not
    change parameters and optimizer state, and has the metric `skipped` 1.

    Args:
        loss: see `tasks.Task.loss`.
        phase: defines which groups are trained, and how.
        seed: of dropout and other random operations.
        accumulate: number of parts of the batch that are processed sequentially.
        turn: index of the turn, if groups take turns in the phase.
        mechanism: of private training, whose batches are those of `data.units`.
    """
    names = phase.active(turn)

    def train_step(
        state: TrainState, batch: dict, reference: Any = None
    ) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), state.step)

        def summed_loss(trained, rows, key, task_state):
            params = phase.split.put(state.params, trained)
            context = Context(
                key, state.step, reference, task_state, phase=phase.index, parts=accumulate
            )
            result = loss(params, rows, context)
            return result.total, (loss_sums(result), result.state)

        def mean_loss(trained, rows, key):
            total, (sums, _) = summed_loss(trained, rows, key, state.task_state)
            return total / jnp.maximum(sums["means"]["loss"][1], 1e-6), sums

        trained = phase.trainable(state.params, names)
        if mechanism is None:
            gradient = jax.grad(summed_loss, has_aux=True)
            if _has_experts(state.params):
                gradient = _with_balance(gradient, summed_loss)
            grads, sums, task_state = _gradients(
                gradient, trained, batch, key, state.task_state, accumulate
            )
            total, weight = sums["means"]["loss"]
            weight = jnp.maximum(weight, 1e-6)
            norm = optax.tree.norm(grads) / weight
            finite = jnp.isfinite(norm) & jnp.isfinite(total)
        else:
            grads, sums = mechanism.gradient(mean_loss, trained, batch, state.step)
            task_state, weight = state.task_state, mechanism.expected
            norm = optax.tree.norm(grads) / weight
            # not by the loss: whether a step counts would tell of the data without noise
            finite = jnp.isfinite(norm)

        def update():
            mean = jax.tree.map(lambda g: g / weight, grads)
            params, opt_state = phase.update(mean, state.opt_state, state.params)
            return params, opt_state, task_state

        # cond instead of select, for which XLA for CPUs would copy the whole state
        params, opt_state, task_state = jax.lax.cond(
            finite, update, lambda: (state.params, state.opt_state, state.task_state)
        )
        metrics = {"sums": sums, "grad_norm": norm, "skipped": 1 - finite.astype(jnp.int32)}
        return TrainState(state.step + 1, params, opt_state, task_state), metrics

    return train_step


def _has_experts(params: Any) -> bool:
    return any(path_name(p).endswith("/router") for p, _ in jax.tree.leaves_with_path(params))


def _with_balance(gradient: Callable, loss: Callable) -> Callable:
    """The gradient with the losses that layers add multiplied by the weight of the loss."""

    def weighted(trained, batch, key, task_state):
        # the weight is known only with the loss; what else this computes has no use and is not compiled
        _, (sums, _) = loss(trained, batch, key, task_state)
        with moe.loss_weight(sums["means"]["loss"][1]):
            return gradient(trained, batch, key, task_state)

    return weighted


def _gradients(gradient, trained, batch: dict, key, task_state, accumulate: int):
    """Gradient of the summed loss, the sums, and the new task state, over the batch in `accumulate` parts."""
    if accumulate == 1:
        grads, (sums, task_state) = gradient(trained, batch, key, task_state)
        return grads, sums, task_state

    def split(x):
        # every part has rows of all devices: part a is rows a, a + accumulate, ...
        x = x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "batch", *[None] * (x.ndim - 2))

    def add(carry, part):
        total, task_state = carry
        rows, index = part
        grads, (sums, task_state) = gradient(
            trained, rows, jax.random.fold_in(key, index), task_state
        )
        return (jax.tree.map(jnp.add, total, (grads, sums)), task_state), None

    parts = (jax.tree.map(split, batch), jnp.arange(accumulate))
    first = jax.tree.map(lambda x: x[0], parts[0])
    grads, (sums, _) = jax.eval_shape(gradient, trained, first, key, task_state)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, sums))
    ((grads, sums), task_state), _ = jax.lax.scan(add, (zeros, task_state), parts)
    return grads, sums, task_state


def make_eval_step(
    loss: LossFunction, phase: Phase
) -> Callable[[TrainState, dict, Any], dict[str, Any]]:
    """The function (state, batch, reference) -> sums, without dropout, with the parameters for evaluation."""

    def eval_step(state: TrainState, batch: dict, reference: Any = None) -> dict[str, Any]:
        params = phase.evaluation_params(state.params, state.opt_state)
        context = evaluation_context(state.step, reference, state.task_state, phase.index)
        return loss_sums(loss(params, batch, context))

    return eval_step


def evaluation_context(
    step: jax.Array, reference: Any = None, state: Any = None, phase: int = 0
) -> Context:
    """The context of an evaluation, with a fixed key so that evaluation is reproducible."""
    return Context(jax.random.key(0), step, reference, state, train=False, phase=phase)
