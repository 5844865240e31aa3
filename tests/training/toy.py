"""A toy with the parts of a model that the rules of optimizers and groups distinguish, and its steps."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.tasks import Loss
from jaxlm.training import phases
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# token embeddings, three stacked blocks with a bias, the norm above them, and a head
PARAMS = {
    "backbone": {
        "embed": {"embedding": random(0, 6, 4)},
        "stack": {"blocks": {"mlp": {"up": random(1, 3, 4, 4), "up_bias": random(2, 3, 4)}}},
        "final_norm": {"scale": random(3, 4)},
    },
    "head": {"kernel": random(4, 4, 2)},
}


def loss(params, batch, context):
    backbone = params["backbone"]
    x = backbone["embed"]["embedding"][batch["token"]]
    mlp = backbone["stack"]["blocks"]["mlp"]
    for up, bias in zip(mlp["up"], mlp["up_bias"]):
        x = x + jnp.tanh(x @ up + bias)
    logits = x * backbone["final_norm"]["scale"] @ params["head"]["kernel"]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return Loss((each * batch["weights"]).sum(), batch["weights"].sum(), {})


def batch_of(step):
    rng = np.random.default_rng(step)
    return {
        "token": jnp.asarray(rng.permutation(np.arange(12) % 6)),
        "label": jnp.asarray(rng.integers(0, 2, 12)),
        "weights": jnp.asarray(rng.integers(0, 2, 12), jnp.float32),
    }


def train(run, state, before, first, last, accumulate=1, loss=loss):
    """State and phase after steps `first` to `last`; `before` is the phase of the previous step."""
    for step in range(first, last + 1):
        phase = phases.at_step(run, step)
        if before is not None and phase is not before:
            params, opt_state = phase.enter(before, state.params, state.opt_state, PARAMS)
            state = TrainState(state.step, params, opt_state)
        if state.opt_state is None:
            state = TrainState(state.step, state.params, phase.init(state.params))
        turn = phase.turn(step)
        one = make_train_step(loss, phase, seed=0, accumulate=accumulate, turn=turn)
        (state, _), before = one(state, batch_of(step)), phase
    return state, before
