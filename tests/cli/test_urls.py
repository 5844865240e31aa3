"""A URL where a command reads or writes a path: one line, and no local folder of that name."""

import os

import pytest

from jaxlm.checkpoint import store
from jaxlm.cli.main import main
from jaxlm.config import CheckpointConfig, DataConfig, FinetuneConfig, TokenizerConfig, TrainConfig
from jaxlm.config.urls import is_url
from jaxlm.data import shards
from jaxlm.hf import folders
from jaxlm.run import load, restore
from jaxlm.tasks import CausalLMConfig, ClassificationConfig

ROWS = """
train --run-dir URL
train --init URL
train --data.train URL
train --data.validation URL
train --data.decontaminate URL
train --data.tokenizer.path URL
train URL
finetune --init URL
finetune --init-like URL
finetune --adapter URL
finetune --export URL
finetune --run-dir URL
evaluate URL
evaluate HERE --out URL
evaluate HERE --harness-folder URL
predict URL --data a --out b
predict HERE --data a --out URL
report URL
report HERE --out URL
generate URL --prompt a
generate HERE --prompts URL
generate HERE --prompt a --out URL
chat URL
serve URL
serve HERE --api-keys URL
vae sample URL
vae map HERE --data a --out URL
convert URL HERE
convert HERE URL
tokenizer train URL
tokenizer train a.json --data.train URL
tokenize URL HERE
tokenize a.txt URL
tokenize a.txt HERE --data.tokenizer.path URL
refine fineweb a.txt URL
refine report URL
data inspect --out URL
data inspect --data.train URL
"""


@pytest.mark.parametrize("row", ROWS.strip().splitlines())
def test_every_command_refuses_urls(row, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [{"URL": "gs://bucket/run", "HERE": str(tmp_path)}.get(w, w) for w in row.split()]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "gs:/" in lines[0]
    assert "a URL" in lines[0]
    assert not os.listdir(tmp_path)


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
        lambda url: shards.write(url, DataConfig(), None, command="", processes=0),
    ],
)
def test_functions_refuse_urls(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a URL"):
        call("s3://bucket/run")
    assert not os.listdir(tmp_path)


def test_what_is_a_url():
    assert all(map(is_url, ["gs://a/b", "gs:/a/b", "hdfs://host:1/a", "file:///tmp/a"]))
    assert not any(map(is_url, ["/a/b", "a:b", "C:/a", "hub:owner/name", "./gs:/a", "a b:/c"]))
