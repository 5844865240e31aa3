"""The memory that XLA plans for a training step, compiled and never run."""

import jax
import jax.numpy as jnp
import pytest
from runs import one_phase

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks import Loss
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step


def planned(config, rows, length, remat):
    """XLA's memory analysis of the step with donated state, and the parameters."""
    model = heads.CausalLM(config, ComputeConfig(remat=remat))

    def loss(params, batch, context):
        hidden = model.apply({"params": params}, batch["tokens"], method="hidden")
        table, weights = heads.unembedding(params), jnp.ones(batch["tokens"].shape)
        total = losses.token_cross_entropy(hidden, table, batch["targets"], weights).loss
        return Loss(total, weights.sum())

    init = lambda key: heads.init_params(model, key)
    phase = one_phase(jax.eval_shape(init, jax.random.key(0)), clip_norm=0.0)

    def create(key):
        params = init(key)
        return TrainState(jnp.int32(0), params, phase.init(params))

    state = jax.eval_shape(create, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    step = jax.jit(make_train_step(loss, phase, seed=0), donate_argnums=0)
    compiled = step.lower(state, {"tokens": tokens, "targets": tokens}).compile()
    return compiled.memory_analysis(), state


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_the_full_logits_of_a_large_vocabulary_are_never_materialized():
    rows, length, vocab = 8, 512, 128_000
    config = DecoderConfig(
        vocab_size=vocab, dim=16, num_layers=1, num_heads=2, mlp_dim=16, max_len=length
    )
    memory, state = planned(config, rows, length, "none")
    logits = rows * length * vocab * 4
    assert memory.temp_size_in_bytes < 0.2 * logits
    # parameters and moments are updated where they lie
    assert memory.alias_size_in_bytes >= size((state.params, state.opt_state[1][0].mu))


@pytest.mark.slow
def test_another_layer_costs_its_gradients_and_one_activation():
    rows, length, dim = 8, 256, 64
    few, many = 2, 10
    plans = {}
    for layers in (few, many):
        config = DecoderConfig(
            vocab_size=64, dim=dim, num_layers=layers, num_heads=2, mlp_dim=64, max_len=length
        )
        plans[layers] = planned(config, rows, length, "full")
    blocks = {n: size(state.params["backbone"]["stack"]) for n, (_, state) in plans.items()}
    grown = plans[many][0].temp_size_in_bytes - plans[few][0].temp_size_in_bytes
    activations = (many - few) * rows * length * dim * 4
    assert grown <= 1.05 * (activations + blocks[many] - blocks[few])
