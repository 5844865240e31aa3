"""Optimizers in company: with frozen rows, with each other, with schedules, and options that they do not read."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import PARAMS, batch_of, loss, train

from jaxlm import config as c
from jaxlm.config import FinetuneConfig, GroupConfig, OptimizerConfig, files
from jaxlm.models import heads
from jaxlm.tasks import CausalLMConfig, ClassificationConfig, config_classes
from jaxlm.training import optimizer, phases
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step

START = TrainState(jnp.int32(0), PARAMS, None)


def made(**fields):
    own = {"optimizer": OptimizerConfig(warmup_steps=0, clip_norm=0.5), "steps": 10, **fields}
    return phases.make_phases(FinetuneConfig(task=ClassificationConfig(), **own), (), PARAMS)


def up_of(tree):
    return tree["backbone"]["stack"]["blocks"]["mlp"]["up"]


def test_frozen_rows_count_neither_in_clipping_nor_in_the_norm():
    (phase,) = made(
        groups=(GroupConfig(name="frozen", params=("*blocks[1:2]*", "*/embed/*"), frozen=True),)
    )

    def steep(params, batch, context):
        result = loss(params, batch, context)
        embed = params["backbone"]["embed"]["embedding"]
        return result._replace(total=result.total + 1e6 * (up_of(params)[1].sum() + embed.sum()))

    start = TrainState(jnp.int32(0), PARAMS, phase.init(PARAMS))
    results = [
        jax.jit(make_train_step(f, phase, seed=0))(start, batch_of(1)) for f in (loss, steep)
    ]
    (plain, its_metrics), (other, metrics) = results
    assert metrics["sums"]["means"]["loss"][0] != its_metrics["sums"]["means"]["loss"][0]
    np.testing.assert_allclose(metrics["grad_norm"], its_metrics["grad_norm"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(other.params)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
def test_two_optimizers_and_a_frozen_part_equal_optax():
    adamw = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, clip_norm=0.05)
    lion = OptimizerConfig(name="lion", learning_rate=3e-3, schedule="linear", warmup_steps=0)
    (phase,) = made(
        optimizer=adamw,
        groups=(
            GroupConfig(name="frozen", params=("*/embed/*",), frozen=True),
            GroupConfig(name="head", params=("head/*",), optimizer=lion, rate=2.0),
        ),
    )
    state, _ = train([phase], START, None, 1, 4)

    labels = {
        "backbone": {**dict.fromkeys(PARAMS["backbone"], "rest"), "embed": "frozen"},
        "head": "head",
    }
    rates = [
        optax.join_schedules(
            [optax.linear_schedule(5e-3, 1e-2, 1), optax.cosine_decay_schedule(1e-2, 8, 0.1)], [2]
        ),
        optax.linear_schedule(6e-3, 6e-4, 10),
    ]
    decay = optimizer.decay_mask
    trained = {"rest": optax.identity(), "head": optax.identity(), "frozen": optax.set_to_zero()}
    tx = optax.chain(
        optax.partition(trained, labels),
        optax.clip_by_global_norm(0.05),
        optax.partition(
            {
                "rest": optax.adamw(rates[0], b2=0.95, weight_decay=0.1, mask=decay),
                "head": optax.lion(rates[1], b2=0.95, weight_decay=0.1, mask=decay),
                "frozen": optax.set_to_zero(),
            },
            labels,
        ),
    )
    params, own = PARAMS, tx.init(PARAMS)

    def mean(params, batch):
        return loss(params, batch, None).total / batch["weights"].sum()

    @jax.jit
    def one(params, own, batch):
        updates, own = tx.update(jax.grad(mean)(params, batch), own, params)
        return optax.apply_updates(params, updates), own

    for step in range(1, 5):
        params, own = one(params, own, batch_of(step))
    for a, b, first in zip(*map(jax.tree.leaves, (state.params, params, PARAMS))):
        np.testing.assert_allclose(a - first, b - first, atol=1e-6)


# of sgd it is a part of the gradient, as everywhere
@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon"])
def test_weight_decay_follows_the_schedule(name):
    own = OptimizerConfig(
        name=name, learning_rate=0.1, warmup_steps=2, schedule="linear", weight_decay=0.5
    )
    (phase,) = made(optimizer=own)
    params, zeros = jax.tree.map(jnp.ones_like, PARAMS), jax.tree.map(jnp.zeros_like, PARAMS)
    state = phase.init(params)
    for _ in range(4):
        params, state = phase.update({"rest": zeros}, state, params)
    # rates 0.05, 0.1 and then 0.1 falling to a tenth in 8 steps
    left = np.prod([1 - 0.5 * rate for rate in (0.05, 0.1, 0.1, 0.1 - 0.09 / 8)])
    np.testing.assert_allclose(up_of(params), left, rtol=1e-5)
    np.testing.assert_array_equal(params["backbone"]["final_norm"]["scale"], 1)


def test_the_state_of_adafactor_keeps_its_structure():
    # orbax restores no state of another structure, so runs of older versions depend on it
    for weight_decay in (0.0, 0.1):
        own = OptimizerConfig(name="adafactor", weight_decay=weight_decay)
        theirs = optax.adafactor(
            optimizer.make_schedule(own, 10),
            multiply_by_parameter_scale=False,
            weight_decay_rate=weight_decay or None,
            weight_decay_mask=optimizer.decay_mask,
        )
        ours = optimizer.make_optimizer(own, 10)
        new, old = (
            jax.tree.structure(jax.eval_shape(tx.init, PARAMS))
            for tx in (ours, optax.chain(optax.identity(), theirs))
        )
        assert new == old


def test_rates_by_depth_of_an_encoder_decoder():
    model = c.EncoderDecoderConfig(
        vocab_size=32, dim=8, num_layers=3, num_decoder_layers=2, num_heads=2, max_len=8,
        extra_norms=("final",),
    )  # fmt: skip
    shapes = jax.eval_shape(lambda: heads.init_params(heads.Seq2SeqLM(model), jax.random.key(0)))
    rates = optimizer.layer_decay_multipliers(0.5, shapes)["backbone"]
    assert {float(rates[side]["final_norm"]["scale"]) for side in ("encoder", "decoder")} == {1.0}
    of = {side: up_of({"backbone": rates[side]}).ravel() for side in ("encoder", "decoder")}
    np.testing.assert_allclose(of["encoder"], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(of["decoder"], [0.25, 0.5])
    assert rates["embed"]["token"]["embedding"] == 0.0625


def test_unfreezing_an_encoder_and_a_decoder_of_other_depths_begins_at_the_last_block_of_both():
    blocks = lambda n: {"stack": {"blocks": {"mlp": {"up": jnp.zeros((n, 2, 2))}}}}
    sides = {"encoder": blocks(3), "decoder": blocks(2)}
    params = PARAMS | {"backbone": {"embed": PARAMS["backbone"]["embed"], **sides}}
    config = FinetuneConfig(
        task=ClassificationConfig(), optimizer=OptimizerConfig(warmup_steps=0), unfreeze_over=0.8
    )
    _, second, *_ = phases.make_phases(config, (), params)
    taken = second.trainable(params, ("block 2",))["block 2"]["backbone"]
    assert [up_of({"backbone": taken[side]}).shape[0] for side in ("encoder", "decoder")] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="lion", eps=1e-6), "optimizer.eps=1e-06 has no effect with optimizer.name=lion"),
        (dict(name="sgd", b2=0.8), "optimizer.b2=0.8 has no effect with optimizer.name=sgd"),
        (dict(name="adafactor", b1=0.8), "optimizer.b1=0.8 has no effect"),
        (dict(name="adafactor", b2=0.8, eps=1e-6), "optimizer.b2=0.8 and optimizer.eps=1e-06 have"),
        (dict(name="schedule_free_adamw", schedule="linear"), "optimizer.schedule=linear has no"),
        (dict(name="schedule_free_adamw", final_fraction=0.0), "optimizer.final_fraction=0.0 has"),
        (dict(name="schedule_free_adamw", b1=0.0), "leaves schedule_free_adamw no average"),
        (dict(schedule="constant", final_fraction=0.5), "optimizer.final_fraction=0.5 has no"),
        (dict(decay_fraction=0.5), "leave the default (decay_fraction=0.2)"),
    ],
)
def test_options_that_an_optimizer_does_not_read_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        OptimizerConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        dict(name="muon", b1=0.8, b2=0.98, eps=1e-6),
        dict(name="lion", b1=0.95, b2=0.98),
        dict(name="schedule_free_adamw", schedule="constant", b1=0.95, eps=1e-6),
        dict(schedule="wsd", decay_fraction=0.5, final_fraction=0.0),
    ],
)
def test_options_that_an_optimizer_reads_are_accepted(options):
    OptimizerConfig(**options)


def test_a_clip_norm_of_a_group_alone_is_refused():
    group = lambda norm: GroupConfig(
        name="head", params=("head/*",), optimizer=OptimizerConfig(warmup_steps=0, clip_norm=norm)
    )
    with pytest.raises(
        ValueError, match="clip_norm=0\\.3 of the optimizer of 'head' has no effect"
    ):
        made(groups=(group(0.3),))
    made(groups=(group(0.5),))


def test_a_stored_config_with_options_that_were_ignored_loads():
    tasks = config_classes()
    value = files.to_dict(
        c.TrainConfig(task=CausalLMConfig(), optimizer=OptimizerConfig(name="adafactor"))
    )
    value["optimizer"] |= {"b2": 0.5, "eps": 1e-3, "decay_fraction": 0.3}
    config = files.parse(
        {"version": files.VERSION, **value}, c.TrainConfig, where="config.json", tasks=tasks
    )
    assert config.optimizer == OptimizerConfig(name="adafactor")
