"""A URL where a command reads or writes a path: one line, and no local folder of that name."""

import os

import pytest

from jaxlm.checkpoint import store
from jaxlm.cli.main import main
from jaxlm.config import CheckpointConfig, DataConfig, FinetuneConfig, TokenizerConfig, TrainConfig
from jaxlm.config.urls import bucket_url, is_url
from jaxlm.data import shard_writer
from jaxlm.hf import folders
from jaxlm.remote import objects
from jaxlm.run import load, restore
from jaxlm.tasks import CausalLMConfig, ClassificationConfig

# a path in a bucket is possible where it stands for BUCKET, and nowhere where it stands for URL
ROWS = """
train --run-dir BUCKET
train --init BUCKET
train --data.train BUCKET
train --data.validation BUCKET
train --data.decontaminate URL
train --data.tokenizer.path URL
train URL
finetune --init BUCKET
finetune --init none --init-like BUCKET
finetune --adapter URL
finetune --export URL
finetune --run-dir BUCKET
evaluate BUCKET
evaluate HERE --out URL
evaluate HERE --harness-folder URL
predict BUCKET --data a --out b
predict HERE --data a --out URL
report BUCKET
report HERE --out URL
generate BUCKET --prompt a
generate HERE --prompts URL
generate HERE --prompt a --out URL
chat BUCKET
serve BUCKET
serve HERE --api-keys URL
explain BUCKET --text a
audit BUCKET --train a --heldout b --out c.html
vae sample BUCKET
vae map HERE --data a --out URL
convert BUCKET HERE
convert HERE URL
tokenizer train URL
tokenizer train a.json --data.train URL
tokenize URL HERE
tokenize a.txt URL
tokenize a.txt HERE --data.tokenizer.path URL
refine fineweb a.txt URL
refine report URL
data inspect --out URL
data inspect --data.train BUCKET
"""
BUCKET_ROWS = [row for row in ROWS.strip().splitlines() if "BUCKET" in row]


def fails(row, values, folder, capsys):
    """The line with which a command refuses; nothing is written."""
    words = [{"HERE": str(folder), **values}.get(w, w) for w in row.split()]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert not os.listdir(folder)
    return lines[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("row", ROWS.strip().splitlines())
def test_every_command_refuses_urls(row, folder, capsys):
    values = {"URL": "gs://bucket/run", "BUCKET": "hdfs://host/run"}
    line = fails(row, values, folder, capsys)
    assert "gs:/" in line or "hdfs:/" in line
    assert "a URL" in line


@pytest.mark.parametrize("row", BUCKET_ROWS)
def test_every_command_names_the_package_that_is_missing(row, folder, capsys, monkeypatch):
    monkeypatch.setitem(objects._PACKAGES, "s3", ("no_such_package", "s3"))
    line = fails(row, {"BUCKET": "s3://bucket/run"}, folder, capsys)
    assert "s3://bucket/run" in line
    assert ": needs the package no_such_package: pip install" in line


@pytest.mark.parametrize("url", ["gs://bucket", "s3://bucket/", "gs://bucket/../run", "gs://b/a*"])
def test_a_bucket_alone_is_no_folder(url, folder, capsys):
    for row in ("train --run-dir BUCKET", "evaluate BUCKET"):
        assert "name a folder in the bucket" in fails(row, {"BUCKET": url}, folder, capsys)


@pytest.mark.parametrize(
    "call",
    [
        lambda url: store.Checkpoints(url, CheckpointConfig()),
        store.describe,
        restore.restore,
        load.load,
        folders.check_new,
        lambda url: DataConfig(train=(url,)),
        lambda url: TokenizerConfig(path=url),
        lambda url: TrainConfig(task=CausalLMConfig(), init_encoder=url),
        lambda url: FinetuneConfig(task=ClassificationConfig(), export=url),
        lambda url: shard_writer.write(url, DataConfig(), None, command="", processes=0),
    ],
)
def test_functions_refuse_urls(call, folder):
    with pytest.raises(ValueError, match="a URL"):
        call("hdfs://host/run")
    assert not os.listdir(folder)


def test_what_is_a_url():
    assert all(map(is_url, ["gs://a/b", "gs:/a/b", "hdfs://host:1/a", "file:///tmp/a"]))
    assert bucket_url("gs:/a//b/") == bucket_url("gs://a/b") == "gs://a/b"
    assert bucket_url("hdfs://a/b") is bucket_url("/gs://a/b") is None
    assert not any(map(is_url, ["/a/b", "a:b", "C:/a", "hub:owner/name", "./gs:/a", "a b:/c"]))
