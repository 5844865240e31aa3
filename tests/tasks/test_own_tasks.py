"""Custom tasks train, evaluate, predict and resume bit for bit, on one process and on two."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import own_tasks
import pytest
from runs import interrupted_after, losses, small_runs, stored_params, tiny, write_corpus

from jaxlm.config import DecoderConfig, MeshConfig
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.predict import predict
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore

# whole runs
pytestmark = pytest.mark.slow

MODEL = DecoderConfig(dim=16, num_layers=1, num_heads=2, max_len=16)
KINDS = [task.name for task in own_tasks.TASKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_tasks")
    write_corpus(folder)
    own_tasks.write_records(folder)
    with small_runs():
        pretrain(tiny(folder, "base", steps=2, model=MODEL))
        yield folder


@pytest.fixture(scope="module")
def whole(folder):
    """The summaries of uninterrupted runs, by task."""
    return {
        kind: finetune(own_tasks.config_of(kind, folder, kind), tasks=own_tasks.TASKS)
        for kind in KINDS
    }


def same(folder, one, other):
    assert losses(folder / one) == losses(folder / other)
    expected = stored_params(folder / one)
    for path, value in stored_params(folder / other).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.parametrize("kind", ["mean_id", "preference", "contrastive"])
def test_every_task_learns(folder, whole, kind):
    seen = losses(folder / kind)
    first, last = (
        np.mean([seen[step][0] for step in steps]) for steps in ([1, 2, 3], [10, 11, 12])
    )
    assert last < first


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["preference", "contrastive", "two_phase"])
def test_a_run_stopped_within_and_between_phases_equals_an_uninterrupted_one(folder, whole, kind):
    config = own_tasks.config_of(kind, folder, f"{kind}_stopped")
    # checkpoints are at 4, 8, 12 and the best of 6 and 12; the second phase begins after 6
    for kill in (5, 7) if kind == "two_phase" else (6,):
        with interrupted_after(kill):
            finetune(config, tasks=own_tasks.TASKS)
    finetune(config, tasks=own_tasks.TASKS)
    same(folder, kind, f"{kind}_stopped")


def test_evaluation_has_metrics_of_predictions_and_of_sums(folder, whole):
    run = restore(folder / "mean_id", mesh=MeshConfig(data=2), tasks=own_tasks.TASKS)
    result = evaluate(run)
    for name, value in whole["mean_id"]["evaluation"].items():
        np.testing.assert_allclose(result.metrics[name], value, rtol=1e-5, err_msg=name)
    answers = predict(run)
    assert [a["id"] for a in answers] == run.data.ids
    truth = run.rows.arrays["mean"]
    errors = np.array([a["mean"] for a in answers]) - truth
    assert result.metrics["mean_absolute_error"] == pytest.approx(np.abs(errors).mean())
    # the last batch is filled up, and filling rows count in neither
    assert len(truth) % 8
    assert result.metrics["loss"] == pytest.approx(np.square(errors).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["preference", "contrastive"])
def test_evaluation_has_the_reference_and_the_state_of_training(folder, whole, kind):
    run = restore(folder / kind, mesh=MeshConfig(data=2), tasks=own_tasks.TASKS)
    for name, value in whole[kind]["evaluation"].items():
        np.testing.assert_allclose(evaluate(run).metrics[name], value, rtol=1e-5, err_msg=name)
    if kind == "contrastive":
        assert run.context.state["steps"] == 12


def test_predictions_need_no_labels(folder, whole):
    path = folder / "new.jsonl"
    path.write_text('{"text": "a good film"}\n{"text": "a bad film"}\n{"text": "no film"}\n')
    run = restore(
        folder / "two_phase",
        sources=(str(path),),
        purpose="predict",
        mesh=MeshConfig(data=2),
        tasks=own_tasks.TASKS,
    )
    answers = predict(run)
    assert [a["id"] for a in answers] == [f"{path}:{i}" for i in (1, 2, 3)]
    for answer in answers:
        assert answer["label"] in ("pos", "neg")
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_frozen_phase_updates_only_the_head_and_phase_ends_are_saved_as_steps(folder, whole):
    stored = json.loads((folder / "two_phase/config.json").read_text())
    assert [phase["end"] for phase in stored["phases"]] == [6, None]
    before, first = stored_params(folder / "base"), stored_params(folder / "two_phase", 4)
    last = stored_params(folder / "two_phase", 12)
    backbone = [name for name in first if name.startswith("backbone/")]
    assert backbone
    for name in backbone:
        np.testing.assert_array_equal(first[name], before[name], err_msg=name)
    assert any(np.any(last[name] != before[name]) for name in backbone)


@pytest.mark.slow
def test_a_changed_reference_model_is_rejected(folder, whole):
    config = own_tasks.config_of("preference", folder, "changed", steps=4)
    finetune(config, tasks=own_tasks.TASKS)
    pretrain(tiny(folder, "other", steps=2, seed=1, model=MODEL))
    moved = folder / "moved"
    (folder / "base").rename(moved)
    try:
        (folder / "other").rename(folder / "base")
        (folder / "changed/summary.json").unlink()
        with pytest.raises(ValueError, match="reference model has changed"):
            finetune(config, tasks=own_tasks.TASKS)
    finally:
        (folder / "base").rename(folder / "other")
        moved.rename(folder / "base")


def test_a_loss_over_the_whole_batch_is_not_split(folder):
    config = own_tasks.config_of("contrastive", folder, "split", accumulate=2)
    with pytest.raises(ValueError, match="accumulate=2: the loss of task contrastive"):
        finetune(config, tasks=own_tasks.TASKS)


def test_a_missing_task_class_is_named(folder, whole):
    with pytest.raises(ValueError, match="no task has the settings MeanIdConfig"):
        finetune(own_tasks.config_of("mean_id", folder, "unknown"))
    with pytest.raises(ValueError, match=r"task.class: 'MeanIdConfig' is not one of CausalLM"):
        restore(folder / "mean_id")


def test_every_task_exports(folder, whole):
    line = convert(folder / "mean_id", folder / "exported", tasks=own_tasks.TASKS)
    assert "ForSequenceClassification" in line
    assert json.loads((folder / "exported/config.json").read_text())["id2label"] == {"0": "LABEL_0"}


@pytest.fixture(scope="module")
def on_two_processes(folder, whole):
    """All of them once more, on two processes with a device each."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    pair = [
        subprocess.Popen(
            [sys.executable, own_tasks.__file__, str(folder), address, str(i)],
            env=os.environ | {"XLA_FLAGS": flags},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for i in range(2)
    ]
    for process in pair:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_losses_of_one(folder, whole, on_two_processes, kind):
    one, two = losses(folder / kind), losses(folder / f"{kind}_two")
    assert sorted(one) == sorted(two)
    np.testing.assert_allclose([two[s] for s in one], [one[s] for s in one], rtol=1e-4, atol=1e-5)
    result = json.loads((folder / f"{kind}_two/summary.json").read_text())["evaluation"]
    for name, value in whole[kind]["evaluation"].items():
        np.testing.assert_allclose(result[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
