"""Runs in a bucket: the same numbers as local ones, whenever they are killed; commands that read them; faults.

The bucket is a small server in this process, see fake_gcs.py.
"""

import dataclasses
import json
import os
import urllib.parse

import fake_gcs
import numpy as np
import pytest
from runs import losses, small_runs, stored_params, tiny, write_corpus

from jaxlm.checkpoint import store
from jaxlm.cli import main as cli
from jaxlm.config import CheckpointConfig, DataConfig, TokenizerConfig
from jaxlm.data import shard_writer
from jaxlm.data import tokenizer as tokenizers
from jaxlm.remote import lease
from jaxlm.run.pretrain import pretrain

pytestmark = fake_gcs.NEEDED


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


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_it_was_not(remote, storage, folder, tmp_path, local):
    check_kills(remote, storage, folder, tmp_path, local, 20)


def once(*parts):
    """Fails the first request for each of these parts of paths with a status that means: try again."""
    left = list(parts)

    def fail(method, path):
        hit = next((part for part in left if part in urllib.parse.unquote(path)), None)
        if hit is None:
            return None
        left.remove(hit)
        return 503

    return fail, left


@pytest.mark.slow
def test_requests_that_fail_once_are_repeated(storage, folder, tmp_path, local):
    fail, left = once(
        *["uploadType=multipart"] * 3, "commit_success", "params/ocdbt.process_0/d", "/o?"
    )
    storage.forget()
    storage.fail = fail
    pretrain(config_of(folder, "gs://bucket/runs/shaky"))
    storage.fail = lambda method, path: None
    assert not left
    assert_same_run(storage, tmp_path, local, "shaky")


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_reported_and_the_run_goes_on(
    storage, folder, tmp_path, local, capsys
):
    storage.forget()
    storage.fail = lambda method, path: (
        403 if method == "POST" and "checkpoints/4" in urllib.parse.unquote(path) else None
    )
    pretrain(config_of(folder, "gs://bucket/runs/first"))
    storage.fail = lambda method, path: None
    assert "checkpoint 4 was not saved" in capsys.readouterr().out
    assert_same_run(storage, tmp_path, local, "first")
    assert store.steps("gs://bucket/runs/first") == [8, 12]


def test_a_bucket_that_refuses_is_one_line(remote, storage, folder, capsys):
    resume_from(remote[1][-1], storage, folder)
    before = storage.names()
    try:
        for code in (403, 401):
            storage.fail = lambda method, path, code=code: code
            for words in ("evaluate gs://bucket/runs/first", "train --run-dir gs://bucket/runs/x"):
                assert cli.main(words.split()) == 2
                assert len(capsys.readouterr().err.splitlines()) == 1
        # what is there, but cannot be read, is no damaged checkpoint
        storage.fail = lambda method, path: (
            403 if "ocdbt" in path or "manifest%2F" in path else None
        )
        config = config_of(folder, "gs://bucket/runs/first")
        with pytest.raises(ValueError, match="cannot be read"):
            pretrain(dataclasses.replace(config, steps=16))
    finally:
        storage.fail = lambda method, path: None
    assert [name for name in storage.names() if ".corrupt" in name] == []
    assert {n for n in before if "checkpoints" in n} == {
        n for n in storage.names() if "checkpoints" in n
    }


@pytest.mark.slow
def test_a_damaged_checkpoint_is_put_aside(remote, storage, folder, tmp_path, local, capsys):
    state = dict(remote[1][-1])
    data = next(n for n in state if "checkpoints/12/params/ocdbt.process_0/d/" in n)
    generation, content = state[data]
    state[data] = generation, content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
    summary = next(n for n in state if n.endswith("summary.json"))
    del state[summary]
    resume_from(state, storage, folder)
    assert "checkpoint 12 is corrupt" in capsys.readouterr().out
    assert_same_run(storage, tmp_path, local, "first")
    assert any("checkpoints/12.corrupt/" in name for name in storage.names())


@pytest.mark.slow
def test_a_model_of_the_bucket_is_a_starting_point(remote, storage, folder, tmp_path):
    resume_from(remote[1][-1], storage, folder)
    config = tiny(folder, "more", init="gs://bucket/runs/first", steps=2)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, tokenizer=TokenizerConfig())
    )
    pretrain(config)
    assert stored_params(folder / "more")
    again = dataclasses.replace(config, run_dir="gs://bucket/runs/first")
    with pytest.raises(ValueError, match="is the folder of --init"):
        pretrain(again)


@pytest.mark.slow
def test_token_shards_are_read_from_a_bucket(storage, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny(folder, "here", steps=4)
    tokenizer = tokenizers.train(
        (folder / "corpus.txt").read_text().splitlines(), config.data.tokenizer
    )
    shard_writer.write(tmp_path / "shards", config.data, tokenizer, command="", processes=0)
    for path in (tmp_path / "shards").iterdir():
        storage.put(f"bucket/shards/{path.name}", path.read_bytes())
    storage.put("bucket/shards/../../evil.tokens", b"no")
    for name, source in (("here", str(tmp_path / "shards")), ("there", "gs://bucket/shards")):
        data = DataConfig(train=(source,), seq_len=16)
        pretrain(dataclasses.replace(config, run_dir=str(folder / name), data=data))
    assert losses(folder / "here") == losses(folder / "there")
    (copy,) = (tmp_path / "cache/jaxlm/shards").iterdir()
    assert {p.name for p in copy.iterdir()} - {".lock"} == {
        p.name for p in (tmp_path / "shards").iterdir()
    }
    data = DataConfig(train=("gs://bucket/texts",), seq_len=16)
    with pytest.raises(ValueError, match="gs://bucket/texts: no token shards"):
        pretrain(dataclasses.replace(config, data=data, run_dir=str(folder / "none")))
