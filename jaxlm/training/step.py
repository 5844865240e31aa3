"""One step of training and one of evaluation, as pure functions of state and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.sharding import constrain
from jaxlm.training.optimizer import evaluation_params
from jaxlm.training.state import TrainState

Loss = Callable[[Any, dict, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    accumulate: int = 1,
    frozen: Any = None,
) -> Callable[[TrainState, dict], tuple[TrainState, dict[str, jax.Array]]]:
    """The step (state, batch) -> (state, metrics), to be jitted with the state donated.

    The gradient is that of the summed loss, divided once by the weight of the whole batch. The random key is a function
    of seed and step. A step whose loss or gradient is not finite leaves parameters and optimizer state as they were and
    reports `skipped` 1.

    Args:
        loss: see `tasks.Task`.
        optimizer: from `optimizer.make_optimizer`.
        seed: of dropout and the like.
        accumulate: parts of the batch that are worked through one after another.
        frozen: tree of bool: parameters that need no gradient.
    """

    def summed_loss(params, batch, key):
        if frozen is not None:
            stop = lambda p, f: jax.lax.stop_gradient(p) if f else p
            params = jax.tree.map(stop, params, frozen)
        return loss(params, batch, key)

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), state.step)
        grads, sums = _gradients(summed_loss, state.params, batch, key, accumulate)
        weight = jnp.maximum(sums["weight"], 1e-6)
        norm = optax.tree.norm(grads) / weight
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])

        def update():
            mean = jax.tree.map(lambda g: g / weight, grads)
            updates, opt_state = optimizer.update(mean, state.opt_state, state.params)
            return optax.apply_updates(state.params, updates), opt_state

        # not a choice between new and old numbers, for which XLA for CPUs would copy the whole state
        params, opt_state = jax.lax.cond(finite, update, lambda: (state.params, state.opt_state))
        metrics = {**sums, "grad_norm": norm, "skipped": 1 - finite.astype(jnp.int32)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def _gradients(loss: Loss, params, batch: dict, key, accumulate: int):
    """Gradient of the summed loss, and the sums, over the batch in `accumulate` parts."""
    gradient = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        return gradient(params, batch, key)

    def split(x):
        # every part takes rows from all devices: part a is rows a, a + parts, ...
        x = x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "batch", *[None] * (x.ndim - 2))

    def add(total, part):
        rows, number = part
        return jax.tree.map(
            jnp.add, total, gradient(params, rows, jax.random.fold_in(key, number))
        ), None

    parts = (jax.tree.map(split, batch), jnp.arange(accumulate))
    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts[0]), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)[0]


def make_eval_step(loss: Loss) -> Callable[[TrainState, dict], dict[str, jax.Array]]:
    """The function (state, batch) -> sums without dropout, of the parameters that are meant for use."""

    def eval_step(state: TrainState, batch: dict) -> dict[str, jax.Array]:
        return loss(evaluation_params(state.opt_state, state.params), batch, None)[1]

    return eval_step
