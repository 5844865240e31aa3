"""Phases: their ends as steps, schedules of groups that continue, and the state passed to the next phase."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import FinetuneConfig, GroupConfig, OptimizerConfig, PhaseConfig
from jaxlm.tasks import ClassificationConfig
from jaxlm.training import phases

PARAMS = {
    "backbone": {"blocks": {"mlp": {"up": jnp.arange(24.0).reshape(4, 2, 3)}}},
    "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)},
}
HEAD = GroupConfig(name="head", params=("head/*",))
FROZEN = GroupConfig(name="frozen", params=("*",), frozen=True)


def run_of(*configs, steps=100, **options):
    optimizer = OptimizerConfig(
        **{"learning_rate": 1.0, "warmup_steps": 0, "weight_decay": 0.0, **options}
    )
    return FinetuneConfig(
        task=ClassificationConfig(), phases=configs, steps=steps, optimizer=optimizer
    )


def made(config):
    return phases.make_phases(config, (), PARAMS)


def test_ends_become_steps_and_resolving_again_keeps_them():
    config = run_of(PhaseConfig(end_fraction=0.25), PhaseConfig(end=60), PhaseConfig())
    resolved = phases.resolve(config, ())
    assert [p.end for p in resolved] == [25, 60, None]
    longer = dataclasses.replace(config, phases=resolved, steps=1000)
    assert [p.end for p in phases.resolve(longer, ())] == [25, 60, None]
    assert [(p.first, p.last) for p in made(config)] == [(1, 25), (26, 60), (61, 100)]
    assert [phases.at_step(made(config), s).index for s in (0, 1, 25, 26, 100)] == [0, 0, 0, 1, 2]
    assert [phases.index_at(resolved, s) for s in (0, 1, 25, 26, 100)] == [0, 0, 0, 1, 2]


def test_a_run_without_phases_has_those_of_its_task():
    task = (PhaseConfig(end=10), PhaseConfig())
    assert len(phases.resolve(run_of(), task)) == 2
    assert len(phases.resolve(run_of(PhaseConfig()), task)) == 1
    only_head = dataclasses.replace(run_of(), train_only="head")
    assert phases.resolve(only_head, task) == ()


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([PhaseConfig(), PhaseConfig()], "phases[0] needs an end"),
        ([PhaseConfig(end=50), PhaseConfig(end=40), PhaseConfig()], "phases[1] ends at step 40"),
        ([PhaseConfig(end=100), PhaseConfig()], "phases[0] ends at step 100: ends must ascend"),
        ([PhaseConfig(end=50)], "phases[0] is the last and ends with the run, at step 100"),
    ],
)
def test_invalid_ends_are_rejected(configs, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        phases.resolve(run_of(*configs), ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhaseConfig(end=3, end_fraction=0.5), "not both"),
        (lambda: PhaseConfig(end_fraction=1.0), "end_fraction=1.0 is not between"),
        (lambda: PhaseConfig(turns=(("haed",),), groups=(HEAD,)), "turns name the group 'haed'"),
        (lambda: PhaseConfig(turns=(("rest",), ())), "turns[1] names no group"),
        (lambda: PhaseConfig(turns=("rest",)), "turns[0] is the text 'rest', not a tuple"),
        (
            lambda: PhaseConfig(turns="rest"),
            "turns is the text 'rest', not a tuple: write ('rest',)",
        ),
        (lambda: PhaseConfig(reset="head/*"), "reset is the text 'head/*', not a tuple"),
        (lambda: GroupConfig(name="a", params="head/*"), "groups.params is the text 'head/*'"),
        (lambda: GroupConfig(name="rest", params=("head/*",)), "the name 'rest' belongs to all"),
        (lambda: GroupConfig(name="a", params=()), "'a' has no params"),
        (lambda: GroupConfig(name="a", params=("*",), rate=0.0), "rate=0.0 of 'a'"),
        (lambda: GroupConfig(name="a", params=("*",), frozen=True, rate=2.0), "no effect"),
        (lambda: dataclasses.replace(run_of(PhaseConfig()), groups=(HEAD,)), "exclude each other"),
        (
            lambda: dataclasses.replace(run_of(), groups=(HEAD,), train_only="head"),
            "train_only=head cannot be combined with groups",
        ),
    ],
)
def test_invalid_groups_and_phases_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


REST_FROZEN = GroupConfig(name="rest", params=("*",), frozen=True)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (PhaseConfig(reset=("hed/*",)), "phases[1].reset: pattern 'hed/*' matches no parameter"),
        (
            PhaseConfig(reset=("*blocks[4:]*",)),
            "phases[1].reset: pattern '*blocks[4:]*' matches no",
        ),
        (
            PhaseConfig(groups=(HEAD, REST_FROZEN), turns=(("head",), ("rest",))),
            "phases[1].turns name 'rest', which is frozen or has no parameters; trained groups are head",
        ),
        (
            PhaseConfig(groups=(HEAD,), turns=(("head",),)),
            "phases[1].turns leave out 'rest', which is then never updated",
        ),
    ],
)
def test_patterns_and_turns_that_fit_no_parameters_are_rejected(phase, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        made(run_of(PhaseConfig(end=50), phase))


def test_phases_are_described_in_a_line():
    turns = PhaseConfig(groups=(HEAD,), turns=(("head",), ("head", "rest")), reset=("head/bias",))
    one, two = made(run_of(PhaseConfig(end=20, groups=(HEAD, FROZEN)), turns))
    assert str(one) == "steps 1 to 20: trains head; freezes frozen"
    assert str(two) == (
        "steps 21 to 100: trains head, rest; in turns head | head, rest; resets head/bias"
    )


def test_the_last_blocks_of_a_model_without_a_final_norm_are_trained_alone():
    config = dataclasses.replace(run_of(), train_only="last_blocks", last_blocks=1)
    (phase,) = made(config)
    assert str(phase) == "steps 1 to 100: trains trained; freezes frozen"
    moved = phase.trainable(PARAMS, ("trained",))["trained"]
    assert moved["backbone"]["blocks"]["mlp"]["up"].shape == (1, 2, 3)
    assert moved["head"].keys() == {"kernel", "bias"}
    with pytest.raises(ValueError, match="last_blocks=5: the model has 4 blocks"):
        made(dataclasses.replace(config, last_blocks=5))


def test_only_the_named_blocks_are_reset():
    config = run_of(PhaseConfig(end=10), PhaseConfig(reset=("*blocks[-1:]*",)))
    one, two = made(config)
    fresh = jax.tree.map(lambda x: x + 7, PARAMS)
    entered, _ = two.enter(one, PARAMS, one.init(PARAMS), fresh)
    up, old = (p["backbone"]["blocks"]["mlp"]["up"] for p in (entered, PARAMS))
    np.testing.assert_array_equal(up[:3], old[:3])
    np.testing.assert_array_equal(up[3], old[3] + 7)
    np.testing.assert_array_equal(entered["head"]["kernel"], PARAMS["head"]["kernel"])


def test_a_schedule_spans_the_phases_that_continue_a_group():
    first = PhaseConfig(end=20, groups=(HEAD, FROZEN))
    turns = PhaseConfig(end=50, groups=(HEAD,), turns=(("head",), ("rest",), ("rest",)))
    last = PhaseConfig(groups=(HEAD,))
    one, two, three = made(run_of(first, turns, last))
    # 20 steps, a third of 30, and 50
    assert {p.trained["head"].steps for p in (one, two, three)} == {80}
    assert [p.trained["head"].steps_before for p in (one, two, three)] == [0, 20, 30]
    assert [p.trained["head"].continues for p in (one, two, three)] == [False, True, True]
    assert two.trained["rest"].steps == three.trained["rest"].steps == 70
    assert not two.trained["rest"].continues
    # the schedule ends where the run ends, and nothing jumps at the ends of phases
    rates = [phases.at_step([one, two, three], s).learning_rate(s) for s in range(1, 101)]
    assert rates[0] == 1.0
    assert rates[-1] < 0.11
    assert np.abs(np.diff(rates)).max() < 0.03
    assert rates[20] == rates[21] == rates[22] != rates[23]


def test_a_warmup_longer_than_the_training_of_its_group_is_rejected():
    config = run_of(PhaseConfig(end=95, groups=(HEAD, FROZEN)), PhaseConfig(), warmup_steps=30)
    with pytest.raises(ValueError, match="warmup_steps=30 is more than the 5 steps in which"):
        made(config)


def test_a_continued_group_keeps_its_state_and_another_gets_a_new_one():
    config = run_of(PhaseConfig(end=10, groups=(HEAD, FROZEN)), PhaseConfig(groups=(HEAD,)))
    one, two = made(config)
    grads = {"head": jax.tree.map(jnp.ones_like, PARAMS["head"])}
    params, state = one.update({"head": {"head": grads["head"]}}, one.init(PARAMS), PARAMS)
    entered, new_state = two.enter(one, params, state, None)
    for a, b in zip(jax.tree.leaves(entered), jax.tree.leaves(params)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(new_state["head"]), jax.tree.leaves(state)):
        np.testing.assert_array_equal(a, b)
    assert not any(np.any(x) for x in jax.tree.leaves(new_state["rest"]))


def test_reset_parameters_are_new_and_so_is_the_state_of_their_group():
    config = run_of(
        PhaseConfig(end=10, groups=(HEAD,)), PhaseConfig(groups=(HEAD,), reset=("head/kernel",))
    )
    one, two = made(config)
    assert not two.trained["head"].continues
    assert two.trained["rest"].continues
    fresh = jax.tree.map(lambda x: x + 7, PARAMS)
    entered, _ = two.enter(one, PARAMS, one.init(PARAMS), fresh)
    np.testing.assert_array_equal(entered["head"]["kernel"], fresh["head"]["kernel"])
    np.testing.assert_array_equal(entered["head"]["bias"], PARAMS["head"]["bias"])


def test_a_schedule_free_group_ends_with_its_average():
    config = run_of(
        PhaseConfig(end=10, groups=(HEAD, FROZEN)),
        PhaseConfig(groups=(dataclasses.replace(HEAD, frozen=True),)),
        name="schedule_free_adamw",
    )
    one, two = made(config)
    grads = {"head": {"head": jax.tree.map(jnp.ones_like, PARAMS["head"])}}
    params, state = PARAMS, one.init(PARAMS)
    for _ in range(3):
        params, state = one.update(grads, state, params)
    entered, _ = two.enter(one, params, state, None)
    average = one.evaluation_params(params, state)
    assert np.any(average["head"]["kernel"] != params["head"]["kernel"])
    np.testing.assert_array_equal(entered["head"]["kernel"], average["head"]["kernel"])
