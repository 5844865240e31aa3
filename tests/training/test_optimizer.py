"""Optimizers: one suite over all of them, formulas of schedules, and groups of parameters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    FinetuneConfig,
    GroupConfig,
    OptimizerConfig,
    TrainConfig,
)
from jaxlm.models import heads
from jaxlm.tasks import CausalLMConfig, ClassificationConfig
from jaxlm.training import optimizer, phases
from jaxlm.training.groups import Split

SIZES = dict(vocab_size=64, dim=16, num_layers=3, num_heads=2, max_len=8)
MODEL = DecoderConfig(**SIZES)
NAMES = ["adamw", "sgd", "adafactor", "lion", "muon", "schedule_free_adamw"]


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: heads.init_params(heads.CausalLM(MODEL), jax.random.key(0)))()


@pytest.fixture(scope="module")
def classifier_params():
    model = heads.Classifier(
        EncoderConfig(
            **SIZES,
            norm_eps=1e-5,
            norm_place="pre",
            extra_norms=("embedding", "final"),
            activation="gelu_tanh",
            dropout=0.0,
            attention_dropout=0.0,
        ),
        2,
    )
    return jax.jit(lambda: heads.init_params(model, jax.random.key(0)))()


def phase_of(params, config=None, **optimizer_options):
    """The only phase of a run, without warm-up and weight decay unless they are given."""
    options = {"warmup_steps": 0, "weight_decay": 0.0, **optimizer_options}
    if config is None:
        config = TrainConfig(task=CausalLMConfig(), optimizer=OptimizerConfig(**options))
    return phases.make_phases(config, (), params)[0]


def steps(phase, params, grads, count=5):
    """Parameters and optimizer state after some steps with the same gradients."""

    @jax.jit
    def update(params, state):
        return phase.update(phase.trainable(grads, tuple(phase.trained)), state, params)

    state = phase.init(params)
    for _ in range(count):
        params, state = update(params, state)
    return params, state


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_minimizes_a_quadratic(name, params):
    phase = phase_of(params, name=name, learning_rate=1e-2 if name == "muon" else 3e-3)
    goal = jax.tree.map(lambda p: p + 0.05, params)
    loss = lambda p: sum(
        jnp.sum(jnp.square(a - b)) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(goal))
    )

    @jax.jit
    def run(p):
        def one(carry, _):
            p, s = carry
            return phase.update({"rest": jax.grad(loss)(p)}, s, p), None

        return jax.lax.scan(one, (p, phase.init(p)), None, length=150)[0]

    after, state = run(params)
    used = phase.evaluation_params(after, state)
    assert float(loss(used)) < 0.2 * float(loss(params))


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_matrices_and_nothing_else(name, params):
    phase = phase_of(params, name=name, learning_rate=1e-2, weight_decay=1.0)
    ones = jax.tree.map(jnp.ones_like, params)
    after, _ = steps(phase, ones, jax.tree.map(jnp.zeros_like, ones), count=1)
    for path, x in jax.tree.leaves_with_path(after):
        shrunk = bool(jnp.all(x < 1))
        same = bool(jnp.all(x == 1))
        name_ = path[-1].key
        decayed = name_ in ("query", "key", "value", "out", "up", "down", "embedding")
        assert shrunk if decayed else same, path


def test_schedules_equal_their_formulas():
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
    phase = phase_of(params, eps=1.0)
    large_step, _ = steps(phase, params, grads, 1)
    unit_step, _ = steps(phase, params, small, 1)
    for a, b in zip(jax.tree.leaves(large_step), jax.tree.leaves(unit_step)):
        np.testing.assert_allclose(a, b, atol=1e-7)


def finetuning(optimizer=OptimizerConfig(warmup_steps=0, weight_decay=0.1), **fields):
    return FinetuneConfig(task=ClassificationConfig(), optimizer=optimizer, **fields)


def moved(before, after):
    """The parts of a classifier that have changed: head, final_norm, embed, "block 0", ..."""
    seen = set()
    for path, (old, new) in jax.tree.leaves_with_path(
        jax.tree.map(lambda a, b: (a, b), before, after), is_leaf=lambda x: isinstance(x, tuple)
    ):
        names = [k.key for k in path]
        if "blocks" in names:
            seen |= {f"block {i}" for i in range(3) if bool(jnp.any(old[i] != new[i]))}
        elif bool(jnp.any(old != new)):
            seen.add(names[0] if names[0] == "head" else names[1])
    return seen


EVERYTHING = {"head", "final_norm", "block 0", "block 1", "block 2", "embed"}
GROUPS = {
    "head": (dict(train_only="head"), {"head"}),
    "last block": (
        dict(train_only="last_blocks", last_blocks=1),
        {"head", "final_norm", "block 2"},
    ),
    "all": ({}, EVERYTHING),
    "layer decay": (dict(layer_decay=0.5), EVERYTHING),
    "layer decay of the last two blocks": (
        dict(layer_decay=0.5, train_only="last_blocks", last_blocks=2),
        {"head", "final_norm", "block 1", "block 2"},
    ),
    "two optimizers and a frozen block in the middle": (
        dict(
            groups=(
                GroupConfig(name="frozen", params=("*blocks[1:2]*", "*/embed/*"), frozen=True),
                GroupConfig(
                    name="head",
                    params=("head/*",),
                    rate=2.0,
                    optimizer=OptimizerConfig(name="lion"),
                ),
            )
        ),
        {"head", "final_norm", "block 0", "block 2"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", GROUPS)
def test_a_frozen_group_is_unchanged_and_has_no_state(case, name, classifier_params):
    fields, expected = GROUPS[case]
    config = finetuning(OptimizerConfig(name=name, warmup_steps=0, weight_decay=0.1), **fields)
    phase = phase_of(classifier_params, config)
    grads = jax.tree.map(jnp.ones_like, classifier_params)
    after, state = steps(phase, classifier_params, grads, 2)
    assert moved(classifier_params, after) == expected
    # what is used moves where training does, and nowhere else
    assert moved(classifier_params, phase.evaluation_params(after, state)) == expected
    trained = phase.trainable(classifier_params, tuple(phase.trained))
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    # two moments for each number that is trained at most, and counters
    assert size(state) <= 2 * size(trained) + 20


def test_clipping_considers_only_trained_parameters(classifier_params):
    big = lambda path, x: jnp.full_like(x, 1e6 if path[0].key == "backbone" else 1e-3)
    grads = jax.tree.map_with_path(big, classifier_params)
    # eps so large that an update is proportional to the gradient
    options = OptimizerConfig(warmup_steps=0, weight_decay=0.0, eps=1.0)
    phase = phase_of(classifier_params, finetuning(options, train_only="head"))
    after, _ = steps(phase, classifier_params, grads, 1)
    change = after["head"]["classes"]["kernel"] - classifier_params["head"]["classes"]["kernel"]
    np.testing.assert_allclose(change, -1e-3 * 1e-3, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_scales_the_update_of_each_layer(name, classifier_params):
    one = lambda decay: finetuning(
        OptimizerConfig(name=name, warmup_steps=0, weight_decay=0.0, clip_norm=0.0),
        layer_decay=decay,
    )
    grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), classifier_params)
    used = {}
    for decay in (1.0, 0.5):
        phase = phase_of(classifier_params, one(decay))
        used[decay] = phase.evaluation_params(*steps(phase, classifier_params, grads, 3))
    up = lambda tree: tree["backbone"]["stack"]["blocks"]["mlp"]["up"]
    change = {k: up(p) - up(classifier_params) for k, p in used.items()}
    for layer, factor in enumerate([0.125, 0.25, 0.5]):
        np.testing.assert_allclose(change[0.5][layer], factor * change[1.0][layer], atol=2e-6)


def test_layer_decay_equals_its_formula(classifier_params):
    m = optimizer.layer_decay_multipliers(0.5, classifier_params)
    assert m["head"]["classes"]["kernel"] == 1.0
    np.testing.assert_allclose(
        m["backbone"]["stack"]["blocks"]["mlp"]["up"].ravel(), [0.125, 0.25, 0.5]
    )
    assert m["backbone"]["embed"]["token"]["embedding"] == 0.0625


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [GroupConfig(name="a", params=("heat/*",))],
            "pattern 'heat/*' of 'a' matches no parameter",
        ),
        ([GroupConfig(name="a", params=("*",), frozen=True)], "nothing to train"),
        ([GroupConfig(name="a", params=("head/*",))] * 2, "two groups are called 'a'"),
        (
            [
                GroupConfig(name="a", params=("head/*", "*")),
                GroupConfig(name="b", params=("head/*",)),
            ],
            "'b' has no parameter left, because a parameter belongs to the first group that names it: all of its own "
            "are in a; put 'b' before them",
        ),
        (
            [GroupConfig(name="a", params=("*blocks[9:]*",))],
            "pattern '*blocks[9:]*' of 'a' matches no parameter",
        ),
    ],
)
def test_invalid_groups_are_rejected(groups, message, classifier_params):
    with pytest.raises(ValueError, match=re.escape(message)):
        Split(groups, classifier_params)


def test_split_put_inverts_take(classifier_params):
    groups = [
        GroupConfig(name="a", params=("*blocks[1:]*",)),
        GroupConfig(name="b", params=("head/*", "*attn*")),
    ]
    split = Split(groups, classifier_params)
    parts = {name: split.take(classifier_params, name) for name in split.trained}
    assert set(parts) == {"a", "b", "rest"}
    doubled = split.put(classifier_params, jax.tree.map(lambda x: 2 * x, parts))
    for a, b in zip(jax.tree.leaves(doubled), jax.tree.leaves(classifier_params)):
        np.testing.assert_array_equal(a, 2 * b)
    query = parts["b"]["backbone"]["stack"]["blocks"]["attn"]["query"]
    assert query.shape[0] == 1
    one = split.put(classifier_params, {"a": jax.tree.map(lambda x: 0 * x, parts["a"])})
    assert moved(classifier_params, one) == {"block 1", "block 2"}
