"""Every optimizer with every way of freezing: parts of a batch, resuming, and what must stay as it was.

The model is a toy with the parts that the rules distinguish, and steps run operation by operation, because to compile
hundreds of steps would take minutes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import PARAMS, train

from jaxlm.checkpoint import store
from jaxlm.config import (
    CheckpointConfig,
    FinetuneConfig,
    GroupConfig,
    OptimizerConfig,
    PhaseConfig,
)
from jaxlm.params import path_name
from jaxlm.tasks import ClassificationConfig
from jaxlm.training import phases
from jaxlm.training.state import TrainState

NAMES = ["adamw", "sgd", "adafactor", "lion", "muon", "schedule_free_adamw"]
STEPS, STOP = 4, 2


EVERYTHING = {"embed", "block 0", "block 1", "block 2", "final_norm", "head"}
HEAD = GroupConfig(name="head", params=("head/*",))
FROZEN = GroupConfig(name="frozen", params=("*blocks[1:2]*", "*/embed/*"), frozen=True)
REST_FROZEN = GroupConfig(name="rest", params=("*",), frozen=True)
LION = OptimizerConfig(name="lion", learning_rate=1e-2, warmup_steps=1)
# options of the run, and the parts that it trains
FREEZING = {
    "nothing": ({}, EVERYTHING),
    "all but the head": (dict(train_only="head"), {"head"}),
    "all but the last block": (
        dict(train_only="last_blocks"),
        {"block 2", "final_norm", "head"},
    ),
    "a block in the middle": (
        dict(groups=(FROZEN,)),
        {"block 0", "block 2", "final_norm", "head"},
    ),
    "a block, and Lion for the head": (
        dict(groups=(FROZEN, GroupConfig(name="head", params=("head/*",), optimizer=LION))),
        {"block 0", "block 2", "final_norm", "head"},
    ),
    "nothing, with rates by depth": (dict(layer_decay=0.5), EVERYTHING),
    "two blocks, with rates by depth": (
        dict(layer_decay=0.5, train_only="last_blocks", last_blocks=2),
        {"block 1", "block 2", "final_norm", "head"},
    ),
    "all but the head in a first phase": (
        dict(phases=(PhaseConfig(end=STOP, groups=(HEAD, REST_FROZEN)), PhaseConfig())),
        EVERYTHING,
    ),
    "in turns": (
        dict(phases=(PhaseConfig(groups=(HEAD,), turns=(("head",), ("rest",))),)),
        EVERYTHING,
    ),
    "less and less": (dict(unfreeze_over=0.75, unfreeze_blocks=2), EVERYTHING),
}


def config_of(name, **fields):
    own = OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=1, clip_norm=0.5)
    return FinetuneConfig(task=ClassificationConfig(), optimizer=own, steps=STEPS, **fields)


def moved(before, after):
    seen = set()
    old = {path_name(path): x for path, x in jax.tree.leaves_with_path(before)}
    for path, x in jax.tree.leaves_with_path(after):
        name = path_name(path)
        if "blocks" in name:
            seen |= {f"block {i}" for i in range(3) if np.any(old[name][i] != x[i])}
        elif np.any(old[name] != x):
            seen.add(next(p for p in ("embed", "final_norm", "head") if p in name))
    return seen


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(two)):
        np.testing.assert_array_equal(a, b, err_msg=path_name(path))


# the quick pass has every optimizer once
CELLS = [
    pytest.param(name, case, marks=[] if i == j + 1 else pytest.mark.slow)
    for i, case in enumerate(FREEZING)
    for j, name in enumerate(NAMES)
]


@pytest.mark.parametrize(("name", "case"), CELLS)
def test_every_optimizer_with_every_way_of_freezing(name, case, tmp_path):
    fields, expected = FREEZING[case]
    run = phases.make_phases(config_of(name, **fields), (), PARAMS)
    start = TrainState(jnp.int32(0), PARAMS, None)
    with jax.disable_jit():
        middle, phase = train(run, start, None, 1, STOP)
        whole, last = train(run, middle, phase, STOP + 1, STEPS)
        parts, _ = train(run, start, None, 1, STEPS, accumulate=2)
    # frozen parts stay as they were, bit for bit, in what is evaluated too
    used = last.evaluation_params(whole.params, whole.opt_state)
    assert moved(PARAMS, whole.params) == moved(PARAMS, used) == expected
    # a batch in two parts has the same gradient
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params)):
        np.testing.assert_allclose(a, b, atol=2e-5)
    # resumed from a checkpoint: the same bits
    items = {"params": middle.params, "opt_state": middle.opt_state}
    with store.Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(STOP, items, wait=True)
        target = jax.eval_shape(lambda: items)
        _, found = checkpoints.restore(lambda step: target)
    with jax.disable_jit():
        state = TrainState(jnp.int32(STOP), found["params"], found["opt_state"])
        resumed, _ = train(run, state, phase, STOP + 1, STEPS)
    same(resumed, whole)
