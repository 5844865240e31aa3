"""Every command that reads a run, with a run in a bucket: it says and does what it does with the local folder.

The bucket is a small server in this process, see fake_gcs.py.
"""

import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import fake_gcs
import pytest
import vae_runs
from runs import REPOSITORY, small_runs, tiny, write_corpus, write_labelled

from jaxlm.cli import main as cli
from jaxlm.config import DataConfig, DecoderConfig, EvaluationConfig, FinetuneConfig
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import ChatConfig, ClassificationConfig

pytestmark = [fake_gcs.NEEDED, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A decoder, a classifier and a VAE: runs of a local folder, which are in the bucket too, and their texts."""
    folder = tmp_path_factory.mktemp("commands")
    storage = fake_gcs.start()
    write_corpus(folder)
    write_labelled(folder)
    with open(folder / "chats.jsonl", "w") as file:
        for name in itertools.product(("ann", "bob", "cat", "dan"), repeat=3):
            turns = (("user", " ".join(name)), ("assistant", f"{name[0]} met {name[1]}."))
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(f"{json.dumps({'messages': messages})}\n")
    with small_runs():
        pretrain(
            tiny(
                folder,
                "decoder",
                model=DecoderConfig(dim=16, num_layers=1, num_heads=2, max_len=64),
            )
        )
        for name, task, file in (
            ("classifier", ClassificationConfig(), "labelled.jsonl"),
            ("chat", ChatConfig(), "chats.jsonl"),
        ):
            finetune(
                FinetuneConfig(
                    run_dir=str(folder / name),
                    init=str(folder / "decoder"),
                    task=task,
                    data=DataConfig(
                        train=(str(folder / file),), validation_fraction=0.2, seq_len=64
                    ),
                    evaluation=EvaluationConfig(every=10),
                    steps=10,
                    batch_size=4,
                )
            )
        vae_runs.train_vae(folder)
        for path in folder.glob("*/**/*"):
            if path.is_file() and path.name != ".lock":
                storage.put(f"bucket/runs/{path.relative_to(folder)}", path.read_bytes())
        yield folder


# with {run}: a folder or a URL, {out}: a new file, {folder}: texts
COMMANDS = [
    "evaluate {run}/decoder --data {folder}/corpus.txt --out {out}.json",
    "generate {run}/decoder --prompt ann --sampling.max-new-tokens 4",
    "chat {run}/chat --sampling.max-new-tokens 4",
    "report {run}/decoder --data {folder}/corpus.txt --out {out}.html",
    "convert {run}/classifier {out}",
    "predict {run}/classifier --data {folder}/labelled.jsonl --out {out}.jsonl",
    "explain {run}/classifier --text ann --out {out}.html",
    "audit {run}/decoder --train {folder}/corpus.txt --heldout {folder}/sentences.txt --prompt-lengths 4 --suffix 4 "
    "--out {out}.html",
    "vae sample {run}/tiny_vae --n 2 --seed 0",
    "vae map {run}/tiny_vae --data {folder}/sentences.txt --out {out}.html",
]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: "_".join(line.split("{")[0].split()))
def test_a_command_reads_a_run_in_a_bucket(line, folder, tmp_path, capsys, monkeypatch):
    printed = {}
    for run in (str(folder), "gs://bucket/runs"):
        out = tmp_path / ("local" if run == str(folder) else "remote")
        words = [word.format(run=run, out=out, folder=folder) for word in line.split()]
        monkeypatch.setattr(sys, "stdin", io.StringIO("ann met bob\n"))
        code = cli.main(words)
        text, errors = capsys.readouterr()
        assert code == 0, (words, errors)
        # the copy of the run is nobody's business
        assert "/jaxlm-" not in text + errors, words
        text = text.replace(run, "RUN").replace(str(out), "OUT")
        # times
        printed[run] = re.sub(r"\d+(\.\d+)? ?m?s\b", "TIME", text)
    local, remote = printed.values()
    assert remote == local


def test_predictions_of_a_task_without_any_name_the_run_in_the_bucket(folder, tmp_path, capsys):
    url = "gs://bucket/runs/decoder"
    corpus = str(folder / "corpus.txt")
    assert cli.main(["predict", url, "--data", corpus, "--out", str(tmp_path / "p")]) == 2
    assert f"{url}: task causal_lm makes no predictions" in capsys.readouterr().err


def test_a_run_in_a_bucket_is_served(folder):
    server = subprocess.Popen(
        [sys.executable, "-m", "jaxlm", "serve", "gs://bucket/runs/decoder", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    try:
        log = ""
        while not (ready := re.search(r"ready at (http://127\.0\.0\.1:\d+)", log)):
            line = server.stderr.readline()
            assert line, log
            log += line
        body = json.dumps({"prompt": "ann", "max_tokens": 3}).encode()
        request = urllib.request.Request(
            f"{ready[1]}/v1/completions", body, {"Content-Type": "application/json"}
        )
        answer = json.load(urllib.request.urlopen(request, timeout=60))
        assert answer["usage"]["completion_tokens"] == 3
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=60)
        assert server.returncode == 128 + signal.SIGTERM, rest
        assert "/jaxlm-" not in log + rest
    finally:
        server.kill()
        server.communicate()
