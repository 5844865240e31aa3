"""Optimizers: one suite over every member, schedules on paper, and the multipliers of fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import DecoderConfig, EncoderConfig, FinetuneConfig, OptimizerConfig, TrainConfig
from jaxlm.models import heads
from jaxlm.training import optimizer

MODEL = DecoderConfig(vocab_size=64, dim=16, num_layers=3, num_heads=2, max_len=8)
NAMES = ["adamw", "adafactor", "lion", "muon", "schedule_free_adamw"]


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: heads.init_params(heads.CausalLM(MODEL), jax.random.key(0)))()


@pytest.fixture(scope="module")
def classifier_params():
    model = heads.Classifier(
        EncoderConfig(**vars(MODEL) | {"norm_place": "pre", "extra_norms": ("embedding", "final")}),
        2,
    )
    return jax.jit(lambda: heads.init_params(model, jax.random.key(0)))()


def steps(config, params, grads, count=5):
    tx = optimizer.make_optimizer(config, params)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(count):
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_down_a_quadratic(name, params):
    config = TrainConfig(
        optimizer=OptimizerConfig(
            name=name,
            learning_rate=1e-2 if name == "muon" else 3e-3,
            warmup_steps=0,
            weight_decay=0.0,
        ),
        steps=200,
    )
    tx = optimizer.make_optimizer(config, params)
    goal = jax.tree.map(lambda p: p + 0.05, params)
    loss = lambda p: sum(
        jnp.sum(jnp.square(a - b)) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(goal))
    )

    @jax.jit
    def run(p):
        def one(carry, _):
            p, s = carry
            updates, s = tx.update(jax.grad(loss)(p), s, p)
            return (optax.apply_updates(p, updates), s), None

        return jax.lax.scan(one, (p, tx.init(p)), None, length=150)[0]

    after, state = run(params)
    used = optimizer.evaluation_params(state, after)
    assert float(loss(used)) < 0.2 * float(loss(params))


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_matrices_and_nothing_else(name, params):
    config = TrainConfig(
        optimizer=OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=0, weight_decay=1.0),
        steps=100,
    )
    ones = jax.tree.map(jnp.ones_like, params)
    after, _ = steps(config, ones, jax.tree.map(jnp.zeros_like, ones), count=1)
    for path, x in jax.tree.leaves_with_path(after):
        shrunk = bool(jnp.all(x < 1))
        same = bool(jnp.all(x == 1))
        name_ = path[-1].key
        decayed = name_ in ("query", "key", "value", "out", "up", "down", "embedding")
        assert shrunk if decayed else same, path


def test_schedules_on_paper():
    make = lambda **k: optimizer.make_schedule(OptimizerConfig(learning_rate=1.0, **k), 100)
    cosine = make(warmup_steps=10, final_fraction=0.1)
    np.testing.assert_allclose(
        [cosine(0), cosine(4), cosine(9), cosine(10)], [0.1, 0.5, 1.0, 1.0], rtol=1e-6
    )
    half_way = 0.1 + 0.9 * (1 + np.cos(np.pi * 0.5)) / 2
    np.testing.assert_allclose([cosine(55), cosine(100)], [half_way, 0.1], rtol=1e-5)
    linear = make(schedule="linear", warmup_steps=0, final_fraction=0.0)
    np.testing.assert_allclose([linear(0), linear(25), linear(100)], [1.0, 0.75, 0.0], atol=1e-6)
    wsd = make(schedule="wsd", warmup_steps=10, decay_fraction=0.2, final_fraction=0.0)
    np.testing.assert_allclose(
        [wsd(10), wsd(79), wsd(80), wsd(90), wsd(100)], [1, 1, 1, 0.5, 0], atol=1e-6
    )
    constant = make(schedule="constant", warmup_steps=2)
    np.testing.assert_allclose([constant(0), constant(1), constant(99)], [0.5, 1, 1], rtol=1e-6)


def test_clipping_bounds_the_update_of_plain_gradients(params):
    grads = jax.tree.map(lambda p: jnp.full_like(p, 100.0), params)
    small = jax.tree.map(lambda g: g / optax.tree.norm(grads), grads)
    config = TrainConfig(optimizer=OptimizerConfig(warmup_steps=0, weight_decay=0.0, eps=1.0))
    large_step, _ = steps(config, params, grads, 1)
    unit_step, _ = steps(config, params, small, 1)
    for a, b in zip(jax.tree.leaves(large_step), jax.tree.leaves(unit_step)):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"train_only": "head"}, {"head"}),
        ({"train_only": "last_blocks", "last_blocks": 1}, {"head", "final_norm", "block 2"}),
        ({}, {"head", "final_norm", "block 0", "block 1", "block 2", "embed"}),
    ],
)
def test_fine_tuning_moves_only_what_it_should(options, moved, classifier_params):
    config = FinetuneConfig(optimizer=OptimizerConfig(warmup_steps=0, weight_decay=0.1), **options)
    grads = jax.tree.map(jnp.ones_like, classifier_params)
    after, _ = steps(config, classifier_params, grads, 2)
    seen = set()
    for path, (old, new) in jax.tree.leaves_with_path(
        jax.tree.map(lambda a, b: (a, b), classifier_params, after),
        is_leaf=lambda x: isinstance(x, tuple),
    ):
        names = [k.key for k in path]
        if "blocks" in names:
            seen |= {f"block {i}" for i in range(3) if bool(jnp.any(old[i] != new[i]))}
        elif bool(jnp.any(old != new)):
            seen.add(names[0] if names[0] == "head" else names[1])
    assert seen == moved
    frozen = optimizer.frozen(config, classifier_params)
    assert frozen["backbone"]["embed"]["token"]["embedding"] == ("embed" not in moved)


def test_layer_decay_on_paper(classifier_params):
    config = FinetuneConfig(layer_decay=0.5)
    m = optimizer.learning_rate_multipliers(config, classifier_params)
    assert m["head"]["classes"]["kernel"] == 1.0
    np.testing.assert_allclose(
        m["backbone"]["stack"]["blocks"]["mlp"]["up"].ravel(), [0.125, 0.25, 0.5]
    )
    assert m["backbone"]["embed"]["token"]["embedding"] == 0.0625


def test_frozen_parameters_have_no_optimizer_state(classifier_params):
    config = FinetuneConfig(train_only="head")
    state = optimizer.make_optimizer(config, classifier_params).init(classifier_params)
    sizes = sum(x.size for x in jax.tree.leaves(state))
    head = sum(x.size for x in jax.tree.leaves(classifier_params["head"]))
    assert sizes < 3 * head
