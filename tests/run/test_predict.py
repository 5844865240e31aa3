"""Predictions row by row: in order, of any batch size and number of devices, continued, of runs and folders."""

import dataclasses
import io
import json
import types

import jax
import numpy as np
import pytest
from runs import small_runs, tiny, write_corpus, write_labelled

import jaxlm
from jaxlm import sharding
from jaxlm.cli.main import main
from jaxlm.config import (
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
)
from jaxlm.run import predict, restore
from jaxlm.run.convert import convert
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import ClassificationConfig, MaskedLMConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny classifier of single texts, the same as a Hugging Face folder, and files to predict."""
    root = tmp_path_factory.mktemp("predict")
    write_corpus(root)
    write_labelled(root)
    with small_runs():
        data = tiny(root).data
        words = TokenizerConfig(kind="wordpiece", vocab_size=90)
        texts = (str(root / "corpus.txt"), str(root / "labelled.jsonl"))
        data = dataclasses.replace(data, train=texts, tokenizer=words, seq_len=32)
        model = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=32, dropout=0.0)
        pretrain(tiny(root, "base", model=model, task=MaskedLMConfig(), data=data, steps=2))
        finetune(
            FinetuneConfig(
                name="run",
                run_dir=str(root / "run"),
                init=str(root / "base"),
                task=ClassificationConfig(),
                data=DataConfig(
                    train=(str(root / "labelled.jsonl"),), validation_fraction=0.2, seq_len=32
                ),
                optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
                evaluation=EvaluationConfig(every=30),
                steps=30,
                batch_size=8,
            )
        )
    convert(root / "run", root / "hf")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(50):
        words = rng.choice(["good", "bad", "film", "tea", "a", "war", "about"], rng.integers(1, 25))
        # labels that the model does not know: answers are not read
        lines.append(json.dumps({"text": " ".join(words), "label": f"new {i}"}))
    (root / "new.jsonl").write_text("\n".join(lines) + "\n")
    return root


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(ours, theirs, tolerance=1e-5):
    """Whether two lists of predictions agree."""
    assert [line["id"] for line in ours] == [line["id"] for line in theirs]
    for a, b in zip(ours, theirs):
        assert a.get("error") == b.get("error")
        if "error" in a:
            continue
        for name, p in a["probabilities"].items():
            assert abs(p - b["probabilities"][name]) <= tolerance
        assert a["label"] == b["label"] or abs(a["probability"] - b["probability"]) < tolerance


def stream(folder, name="run", window=16, devices=1, data="new.jsonl", done=(), **options):
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:devices])
    found = restore.find(folder / name, mesh=mesh, **options)
    model = found.load("predict")
    return list(predict.stream(model, [str(folder / data)], window=window, done=done))


@pytest.fixture(scope="module")
def alone(folder):
    """The predictions of each row by itself, at full length."""
    run = restore.restore(
        folder / "run",
        sources=(str(folder / "new.jsonl"),),
        purpose="predict",
        mesh=MeshConfig(data=1),
        batch_size=1,
        **{},
    ) if False else None
    del run
    found = restore.find(
        folder / "run", mesh=sharding.make_mesh(MeshConfig(), jax.devices()[:1]), batch_size=1
    )
    model = found.load("predict")
    task = model.task
    rows, answers = [], []
    for i, line in enumerate((folder / "new.jsonl").read_text().splitlines()):
        ids = task.tokenizer.encode(json.loads(line)["text"])[:30]
        row = [task.tokenizer.cls_id, *ids, task.tokenizer.sep_id]
        rows.append(row + [0] * (32 - len(row)))
        answers.append({"id": f"{folder / 'new.jsonl'}:{i + 1}"})
    tokens = np.array(rows)
    lengths = np.array([len(task.tokenizer.encode(json.loads(x)["text"])[:30]) + 2 for x in (folder / "new.jsonl").read_text().splitlines()])
    segments = (np.arange(32) < lengths[:, None]).astype(np.int32)
    logits = task.model.apply({"params": model.params}, tokens, segment_ids=segments)
    for answer, p in zip(answers, jax.nn.softmax(logits)):
        best = int(p.argmax())
        answer |= {"label": task.labels[best], "probability": float(p[best])}
        answer["probabilities"] = {n: float(x) for n, x in zip(task.labels, p)}
    return answers


def test_lines_are_those_of_the_model_for_any_batches_windows_and_devices(folder, alone):
    same(stream(folder, batch_size=8), alone)
    same(stream(folder, batch_size=5, window=7), alone)
    same(stream(folder, batch_size=8, window=64, devices=8), alone)
    same(stream(folder, "hf", batch_size=8, seq_len=32), alone)
