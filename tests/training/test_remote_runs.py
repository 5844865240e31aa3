"""Runs in a bucket: the same numbers as local ones, whenever they are killed; commands that read them; faults.

The bucket is a small server in this process, see fake_gcs.py.
"""

import json
import os

import numpy as np
import pytest
from runs import losses, small_runs, stored_params, tiny, write_corpus

pytest.importorskip("gcsfs", reason="needs the extra remote")

import fake_gcs

from jaxlm.checkpoint import store
from jaxlm.cli import main as cli
from jaxlm.config import CheckpointConfig
from jaxlm.remote import lease
from jaxlm.run.load import load
from jaxlm.run.pretrain import pretrain


@pytest.fixture(scope="module", autouse=True)
def quick_runs():
    with small_runs() as patch:
        patch.setattr(lease, "_SETTLES", 0.0)
        yield


@pytest.fixture(scope="module", autouse=True)
def storage():
    storage = fake_gcs.start()
    yield storage
    storage.fail = lambda method, path: None
    storage.watch = lambda objects: None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    write_corpus(folder)
    return folder


def config_of(folder, run_dir):
    return tiny(folder, "run", run_dir=run_dir, checkpoint=CheckpointConfig(every=4, keep=2))


@pytest.fixture(scope="module")
def local(folder):
    pretrain(config_of(folder, str(folder / "local")))
    return folder / "local"


@pytest.fixture(scope="module")
def remote(folder, storage):
    """A run in the bucket, and what was there after each change."""
    states = []
    storage.watch = lambda objects: states.append(dict(objects))
    summary = pretrain(config_of(folder, "gs://bucket/runs/first"))
    storage.watch = lambda objects: None
    return summary, states


def in_bucket(storage, name):
    return storage.read(f"bucket/runs/{name}")


def losses_in_bucket(storage, tmp_path, name):
    (tmp_path / "metrics.jsonl").write_bytes(in_bucket(storage, f"{name}/metrics.jsonl"))
    return losses(tmp_path)


def assert_same_run(storage, tmp_path, local, name):
    assert losses_in_bucket(storage, tmp_path, name) == losses(local)
    ours, theirs = (stored_params(x, 12) for x in (local, f"gs://bucket/runs/{name}"))
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_array_equal(x, theirs[path], err_msg=path)


def test_a_run_in_a_bucket_is_that_of_a_local_folder(remote, storage, tmp_path, local):
    summary, _ = remote
    assert_same_run(storage, tmp_path, local, "first")
    assert summary["run_dir"] == "gs://bucket/runs/first"
    assert json.loads(in_bucket(storage, "first/summary.json"))["steps"] == 12
    names = {name.split("/")[3] for name in storage.names("bucket/runs/first/")}
    assert {n for n in names if not n.startswith("events")} == {
        *("config.json", "tokenizer.json", "metrics.jsonl", "summary.json", "checkpoints")
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert store.steps("gs://bucket/runs/first") == [8, 12]
    # no local folder is named like the URL
    assert not [name for name in os.listdir() if name.startswith("gs")]


def resume_from(state, storage, folder, name="first"):
    """Resumes a run that was killed when this was in the bucket."""
    with storage.lock:
        storage.objects = dict(state)
    return pretrain(config_of(folder, f"gs://bucket/runs/{name}"))


def moments(states, count):
    """The states of the bucket from which a run is resumed, among them those around the first checkpoint's mark."""
    mark = "bucket/runs/first/checkpoints/4/commit_success.txt"
    marked = next(i for i, state in enumerate(states) if mark in state)
    chosen = np.linspace(1, len(states) - 2, count).astype(int).tolist()
    return sorted({marked - 1, marked, *chosen})


def check_kills(remote, storage, folder, tmp_path, local, count):
    _, states = remote
    for i in moments(states, count):
        resume_from(states[i], storage, folder)
        assert_same_run(storage, tmp_path, local, "first")
        assert store.steps("gs://bucket/runs/first") == [8, 12], i
        # nothing is left of unfinished saves and removals
        steps = {name.split("/")[4] for name in storage.names("bucket/runs/first/checkpoints/")}
        assert steps == {"8", "12"}, i


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(remote, storage, folder, tmp_path, local):
    check_kills(remote, storage, folder, tmp_path, local, 2)


@pytest.mark.slow
def test_a_run_that_was_killed_at_many_moments(remote, storage, folder, tmp_path, local):
    check_kills(remote, storage, folder, tmp_path, local, 60)


def test_commands_read_a_run_in_a_bucket(remote, storage, folder, tmp_path, capsys):
    url = "gs://bucket/runs/first"
    resume_from(remote[1][-1], storage, folder)
    corpus = str(folder / "corpus.txt")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "ann met bob"}\n')
    for words in (
        ["evaluate", url, "--data", corpus, "--out", str(tmp_path / "e.json")],
        ["generate", url, "--prompt", "ann met", "--sampling.max-new-tokens", "4"],
        ["predict", url, "--data", str(rows), "--out", str(tmp_path / "p.jsonl")],
        ["report", url, "--data", corpus, "--out", str(tmp_path / "r.html")],
        ["convert", url, str(tmp_path / "hf")],
    ):
        code = cli.main(words)
        printed = capsys.readouterr()
        assert code == 0, (words, printed.err)
        assert "/jaxlm-" not in printed.out, words
    assert json.loads((tmp_path / "e.json").read_text())["run_dir"] == url
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    assert load(url).name == "first"
