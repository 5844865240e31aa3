"""Tiny runs for the tests of the loop: configs, a corpus, and commands in other processes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.checkpoint import store
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from jaxlm.report import curves
from jaxlm.tasks import CausalLMConfig
from jaxlm.tasks.pretraining import decoder
from jaxlm.training import loop, phases

REPOSITORY = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def small_runs():
    """Runs use as many of the eight devices as their mesh has, by default one, and skip samples and curves.

    Those take seconds each; test_docs.py sees that the first commands leave them.
    """
    make_mesh = sharding.make_mesh

    def of_first_devices(config, devices=None):
        count = math.prod(dataclasses.astuple(config))
        return make_mesh(config, devices or jax.devices()[: max(count, 1)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", of_first_devices)
        patch.setattr(decoder.DecoderTask, "sample", lambda *_: None)
        patch.setattr(curves, "curves", lambda *_: None)
        yield patch


def write_corpus(folder: pathlib.Path) -> pathlib.Path:
    """Forty short documents that a small model can learn something from."""
    rng = np.random.default_rng(0)
    names = ["ann", "bob", "cat", "dan", "eve"]
    lines = []
    for _ in range(40):
        a, b = rng.choice(names, 2)
        lines.append(" ".join(f"{a} met {b} on day {d}." for d in rng.integers(0, 30, 6)))
    path = folder / "corpus.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_labelled(folder: pathlib.Path) -> pathlib.Path:
    """Sixty texts of two classes that differ in one word."""
    rng = np.random.default_rng(1)
    path = folder / "labelled.jsonl"
    with path.open("w") as file:
        for i in range(60):
            word, label = [("good", "pos"), ("bad", "neg")][i % 2]
            text = f"a {word} film number {rng.integers(100)} about {rng.choice(['love', 'war', 'tea'])}"
            file.write(json.dumps({"text": text, "label": label}) + "\n")
    return path


def tiny(folder: pathlib.Path, name: str = "run", **changes) -> TrainConfig:
    """A run of 12 steps with dropout, checkpoints every 4 steps and every step logged."""
    config = TrainConfig(
        name=name,
        run_dir=str(folder / name),
        model=DecoderConfig(dim=16, num_layers=2, num_heads=2, max_len=16, dropout=0.1),
        task=CausalLMConfig(),
        data=DataConfig(
            train=(str(folder / "corpus.txt"),),
            text_unit="line",
            validation_fraction=0.2,
            seq_len=16,
            tokenizer=TokenizerConfig(kind="char", vocab_size=64),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        checkpoint=CheckpointConfig(every=4),
        evaluation=EvaluationConfig(every=6),
        mesh=MeshConfig(),
        steps=12,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


@contextlib.contextmanager
def interrupted_after(step):
    """Interrupts the run inside with Ctrl-C's exception, once the metrics of a step are recorded."""
    record = loop._Loop._record

    def interrupted(self, segment, recorded, metrics):
        record(self, segment, recorded, metrics)
        if recorded == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def one_phase(params, steps=1000, **optimizer) -> phases.Phase:
    """The phase of a run that trains all of these parameters, by AdamW without warm-up unless `optimizer` differs."""
    config = TrainConfig(
        task=CausalLMConfig(),
        optimizer=OptimizerConfig(**{"warmup_steps": 0, "weight_decay": 0.0, **optimizer}),
        steps=steps,
    )
    return phases.make_phases(config, (), params)[0]


def as_config_file(config, path: pathlib.Path) -> pathlib.Path:
    """A config file whose get_config() returns this config."""
    from jaxlm.config import files

    files.save(config, path.with_suffix(".json"))
    path.write_text(
        "from jaxlm.config import FinetuneConfig, TrainConfig, files\nfrom jaxlm.tasks import config_classes\n\n\n"
        f"def get_config():\n    return files.load({str(path.with_suffix('.json'))!r}, TrainConfig, FinetuneConfig, "
        "tasks=config_classes())\n"
    )
    return path


def command(
    config_file: pathlib.Path, *flags: str, devices: int = 1, name: str = "train"
) -> subprocess.Popen:
    """`jaxlm train CONFIG` in a new process with `devices` CPU devices."""
    env = os.environ | {
        # the last count is the one that holds
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / f"{name}.py"), str(config_file), *flags],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(folder: pathlib.Path) -> dict[int, tuple[float, float]]:
    """Exact loss and gradient norm of each logged step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "loss" in row}


def stored_params(folder: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Parameters of a checkpoint by path, on one device."""
    about = store.describe(folder, step=step)["params"]
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target: dict = {}
    for path, leaf in about.items():
        *parents, last = path.split("/")
        node = target
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"], sharding=place)
    params = store.load_params(folder, target, step=step)
    from jaxlm.params import path_name

    return {path_name(p): np.asarray(x) for p, x in jax.tree.leaves_with_path(params)}
