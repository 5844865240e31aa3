"""A run that is killed or stopped and then resumed equals an uninterrupted run bit for bit."""

import json
import random
import shutil
import signal

import numpy as np
import pytest
from runs import as_config_file, command, losses, stored_params, tiny, write_corpus

from jaxlm import pretrain
from jaxlm.run import restore


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
