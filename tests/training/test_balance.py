"""The balance loss of experts in a training step: the same for every task, and none for padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import one_phase

from jaxlm.config import DecoderConfig, EncoderConfig
from jaxlm.models import heads
from jaxlm.models.embedder import embed_rows
from jaxlm.tasks import Loss
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step

SIZES = dict(
    vocab_size=32, dim=8, num_layers=1, num_heads=2, max_len=16, num_experts=4, router_balance=1.0
)
ENCODER = EncoderConfig(**SIZES, dropout=0.0, attention_dropout=0.0)
# every row twice, so that both halves of the batch are the same
TOKENS = np.random.default_rng(0).integers(1, 32, (2, 6)).repeat(2, axis=0)


def balance_gradient(model, weight, *, length=6, accumulate=1, parts=1):
    """The gradient of a step whose loss is 0 and has `weight` a row: what the layers add."""
    tokens = np.zeros((4, length), np.int32)
    tokens[:, :6] = TOKENS
    batch = {"tokens": jnp.asarray(tokens), "segment_ids": jnp.asarray(tokens > 0, jnp.int32)}
    params = jax.jit(lambda: heads.init_params(model, jax.random.key(0)))()

    def loss(params, batch, context):
        if isinstance(model, heads.Embedder):
            one_text = {name: x[:, None] for name, x in batch.items()}
            out = embed_rows(model, params, **one_text, parts=parts)
        else:
            tokens, segments = batch["tokens"], batch["segment_ids"]
            out = model.apply({"params": params}, tokens, segment_ids=segments)
        return Loss(0.0 * out.sum(), jnp.float32(weight * len(batch["tokens"])))

    phase = one_phase(params)
    step = jax.jit(make_train_step(loss, phase, seed=0, accumulate=accumulate))
    _, metrics = step(TrainState(jnp.int32(0), params, phase.init(params)), batch)
    return float(metrics["grad_norm"])


CLASSES = heads.Classifier(ENCODER, 2, "mean", 0.0)


@pytest.fixture(scope="module")
def expected():
    value = balance_gradient(CLASSES, 1)
    assert value > 1e-3
    return value


# rows, tokens or predicted tokens; padding; accumulation; texts in parts
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (CLASSES, dict(weight=6, length=16)),
        pytest.param(heads.MaskedLM(ENCODER), dict(weight=0.9), marks=pytest.mark.slow),
        pytest.param(CLASSES, dict(weight=1, accumulate=2), marks=pytest.mark.slow),
        pytest.param(
            heads.Embedder(ENCODER, "mean"), dict(weight=1, parts=2), marks=pytest.mark.slow
        ),
    ],
)
def test_the_balance_loss_has_the_same_size_in_every_task_and_none_for_padding(
    model, options, expected
):
    np.testing.assert_allclose(balance_gradient(model, **options), expected, rtol=1e-4)


@pytest.mark.slow
def test_the_balance_loss_of_a_language_model_is_that_of_its_tokens():
    model = heads.CausalLM(DecoderConfig(**SIZES))
    params = jax.jit(lambda: heads.init_params(model, jax.random.key(0)))()
    tokens = jnp.asarray(TOKENS)
    # outside of a step a layer adds the loss of its tokens
    sums = jax.jit(jax.grad(lambda p: 0.0 * model.apply({"params": p}, tokens).sum()))(params)
    norm = np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(sums)))
    np.testing.assert_allclose(balance_gradient(model, 6), norm / tokens.size, rtol=1e-4)
    np.testing.assert_allclose(balance_gradient(model, 5), norm / tokens.size, rtol=1e-4)
