"""A run that is killed or stopped and then resumed equals an uninterrupted run bit for bit."""

import dataclasses
import json
import random
import shutil
import signal

import numpy as np
import pytest
from runs import as_config_file, command, losses, stored_params, tiny, write_corpus

from jaxlm import PhaseConfig, pretrain
from jaxlm.config import files
from jaxlm.run import quickstart, restore, resume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(folder):
    """Losses and last parameters of the uninterrupted run."""
    process = command(as_config_file(tiny(folder, "unbroken", steps=24), folder / "unbroken.py"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return losses(folder / "unbroken"), stored_params(folder / "unbroken", 24)


def stop_at(config_file, number, step) -> int:
    """Sends the signal after the output of that step; returns the exit code."""
    process = command(config_file)
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            process.send_signal(number)
            break
    process.communicate(timeout=60)  # read to the end: a closed pipe would break the process
    return process.returncode


def assert_same(folder, unbroken):
    expected_losses, expected_params = unbroken
    assert losses(folder) == expected_losses
    params = stored_params(folder, 24)
    assert params.keys() == expected_params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(value, expected_params[name], err_msg=name)


@pytest.mark.slow
def test_a_run_killed_at_random_steps_equals_an_uninterrupted_one(folder, unbroken):
    config_file = as_config_file(tiny(folder, "killed", steps=24), folder / "killed.py")
    for step in sorted(random.Random(0).sample(range(2, 22), 2)):
        assert stop_at(config_file, signal.SIGKILL, step) == -signal.SIGKILL
    process = command(config_file)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_same(folder / "killed", unbroken)


@pytest.mark.slow
def test_sigterm_saves_and_exits_143(folder, unbroken):
    config_file = as_config_file(tiny(folder, "termed", steps=24), folder / "termed.py")
    assert stop_at(config_file, signal.SIGTERM, 6) == 143
    saved = {int(p.name) for p in (folder / "termed/checkpoints").iterdir() if p.name.isdecimal()}
    assert max(saved) not in (4, 8, 12, 16, 20), "saved at the step where it stopped"
    process = command(config_file)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"resuming from step {max(saved)}\n" in out
    assert_same(folder / "termed", unbroken)
    # a run that is complete is left alone
    process = command(config_file)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "complete at step 24" in out


@pytest.mark.slow
def test_another_tokenizer_of_the_same_size_is_refused(folder):
    config = tiny(folder, "swapped", steps=8)
    pretrain(config)
    path = folder / "swapped" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = sorted(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=r"tokenizer\.json: not the tokenizer that the run was"):
        restore.restore_model(folder / "swapped")
    # as if it had been killed at step 5
    shutil.rmtree(folder / "swapped/checkpoints/8")
    with pytest.raises(ValueError, match=r"tokenizer\.json has changed since the run began"):
        pretrain(config)


@pytest.mark.parametrize(
    ("made", "reused"),
    [
        ([], True),
        (["checkpoints"], True),
        (["checkpoints/10.orbax-checkpoint-tmp"], True),
        (["checkpoints/10"], False),
        (["checkpoints/10.corrupt1"], False),
        (["summary.json"], False),
    ],
)
def test_only_a_folder_without_checkpoints_takes_another_config(made, reused, tmp_path):
    config = quickstart.pretraining()
    files.save(config, tmp_path / "config.json")
    for name in made:
        if name.endswith(".json"):
            (tmp_path / name).touch()
        else:
            (tmp_path / name).mkdir(parents=True)
    earlier = resume.begun(tmp_path)
    if reused:
        assert earlier is None
        return
    assert earlier == config
    other = dataclasses.replace(config, steps=300, batch_size=8)
    with pytest.raises(ValueError, match=r"another config \(batch_size: 16 -> 8\): choose another"):
        resume.check(tmp_path, other, earlier)


def change(config, name, value):
    """The config with another value of a dotted field."""
    first, _, rest = name.partition(".")
    if rest:
        value = change(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


@pytest.mark.parametrize(
    ("name", "value", "is_allowed"),
    [
        ("steps", 300, True),
        ("steps", 200, False),
        ("optimizer.learning_rate", 1e-4, True),
        ("optimizer.schedule", "linear", True),
        ("optimizer.warmup_steps", 3, True),
        ("optimizer.final_fraction", 0.5, True),
        ("evaluation.every", 7, True),
        ("evaluation.patience", 2, True),
        # another structure, or another meaning, of the optimizer's state
        ("optimizer.name", "lion", False),
        ("optimizer.b1", 0.8, False),
        ("optimizer.clip_norm", 0.0, False),
        ("optimizer.weight_decay", 0.2, False),
        # other data would come next
        ("batch_size", 8, False),
        ("seed", 1, False),
        ("data.train", ("builtin:tang",), False),
        ("data.seq_len", 64, False),
        ("model.dropout", 0.2, False),
        ("task.z_loss", 1e-4, False),
        ("compute.dtype", "float32", False),
    ],
)
def test_what_may_change_in_a_run_that_has_begun(tmp_path, monkeypatch, name, value, is_allowed):
    config = quickstart.pretraining()
    monkeypatch.setattr(resume.store, "describe", lambda folder: {"steps": [120, 240]})
    other = change(config, name, value)
    if not is_allowed:
        with pytest.raises(ValueError, match="choose another --run-dir"):
            resume.check(tmp_path, other, config)
        return
    said = resume.check(tmp_path, other, config)
    assert said.startswith(f"from step 241 on: {name}: ")


def test_phases_keep_their_ends_when_the_number_of_steps_changes():
    config = quickstart.pretraining()
    half = dataclasses.replace(config, phases=(PhaseConfig(end_fraction=0.5), PhaseConfig()))
    earlier = dataclasses.replace(config, phases=(PhaseConfig(end=120), PhaseConfig()))
    longer = dataclasses.replace(half, steps=480)
    assert resume.with_phases(longer, earlier).phases == earlier.phases
    # the task's own phases are not in the config
    own = dataclasses.replace(config, steps=480)
    assert resume.with_phases(own, earlier).phases == earlier.phases
    # what the person has changed is compared
    assert resume.with_phases(half, earlier) is half
    fixed = dataclasses.replace(config, steps=480, phases=(PhaseConfig(end=99), PhaseConfig()))
    assert resume.with_phases(fixed, earlier) is fixed
    assert resume.with_phases(half, None) is half


@pytest.mark.slow
def test_a_run_that_goes_on_with_more_steps_equals_one_that_had_them_from_the_start(folder, capsys):
    def run(name, **changes):
        config = tiny(folder, name, steps=16)
        optimizer = dataclasses.replace(config.optimizer, schedule="constant")
        return pretrain(dataclasses.replace(config, optimizer=optimizer, **changes))

    run("longer", steps=8)
    capsys.readouterr()
    summary = run("longer")
    assert "from step 9 on: steps: 8 -> 16" in capsys.readouterr().out
    assert summary["steps"] == 16
    run("whole")
    assert losses(folder / "longer") == losses(folder / "whole")
    expected = stored_params(folder / "whole", 16)
    for name, value in stored_params(folder / "longer", 16).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    # with other learning rates and intervals it goes on too
    config = tiny(folder, "longer", steps=20)
    optimizer = dataclasses.replace(config.optimizer, schedule="linear", learning_rate=1e-4)
    evaluation = dataclasses.replace(config.evaluation, every=3)
    changed = dataclasses.replace(config, optimizer=optimizer, evaluation=evaluation)
    assert pretrain(changed)["steps"] == 20
    rows = [json.loads(x) for x in (folder / "longer/metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    assert rates[16] > 1e-4 > rates[17] > rates[20]
    assert [row["step"] for row in rows if "eval/loss" in row][-2:] == [18, 20]
