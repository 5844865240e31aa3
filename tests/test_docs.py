"""What the README and the guides say works: examples, commands, and the two that need nothing but Python."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import pytest

from jaxlm.cli import arguments
from jaxlm.cli import main as cli
from jaxlm.config import FinetuneConfig, TrainConfig
from jaxlm.run import quickstart

REPOSITORY = pathlib.Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
GUIDES = {p.name: p.read_text() for p in sorted((REPOSITORY / "docs").glob("*.md"))}
COMMANDS = re.findall(
    r"^    ((?:python (?:train|finetune)\.py|jaxlm) .*?)(?:\s{2,}#.*)?$",
    README + GUIDES["data.md"] + GUIDES["hugging_face.md"],
    re.MULTILINE,
)


def test_the_example_of_the_building_blocks_runs():
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 25
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["logits"].shape == (2, 33, 256)
    assert abs(float(names["value"]) - 5.545) < 0.1  # about log(256): it has learnt nothing yet
    assert jax.tree.structure(names["gradients"]) == jax.tree.structure(names["params"])


def test_the_example_of_the_guide_to_data_runs():
    [example] = re.findall(r"```python\n(.*?)```", GUIDES["data.md"], re.DOTALL)
    names: dict = {}
    exec(compile(example, "data.md", "exec"), names)
    assert (names["inputs"].lengths + names["targets"].lengths - [12, 8]).tolist() == [2, 2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(command)
    name, argv = (
        (pathlib.Path(words[1]).stem, words[2:]) if words[0] == "python" else (words[1], words[2:])
    )
    assert name in cli.COMMANDS
    if "--help" in argv or name not in ("train", "finetune"):
        return  # test_cli.py runs these
    kind, default = {
        "train": (TrainConfig, quickstart.pretraining),
        "finetune": (FinetuneConfig, quickstart.finetuning),
    }[name]
    config = arguments.read_config(argv, kind, default, name)
    assert isinstance(config, kind)


def test_commands_were_found():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").rglob("*.py")), ids=lambda p: p.stem
)
def test_every_config_file_makes_a_config_and_tells_its_command(path):
    from jaxlm.config import files

    config = files.load_python(path)
    assert isinstance(config, (TrainConfig, FinetuneConfig))
    assert config.name
    text = path.read_text()
    assert "Command:" in text
    assert "Hardware:" in text


def test_the_first_commands_run_end_to_end(tmp_path):
    one = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"

    def run(script, *flags):
        done = subprocess.run(
            [
                sys.executable,
                REPOSITORY / script,
                "--steps",
                "2",
                "--optimizer.warmup-steps",
                "1",
                *flags,
            ],
            cwd=tmp_path,
            env=os.environ | {"XLA_FLAGS": one},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = run("train.py", "--evaluation.batches", "1", "--data.max-documents", "60")
    assert "everything is in" in out
    assert "--- sample at step 2\n" in out
    for name in ("summary.json", "curves.png"):
        assert (tmp_path / "runs/python_docs" / name).stat().st_size > 0, name
    out = run("finetune.py", "--evaluation.batches", "2")
    assert "accuracy" in out
    summary = json.loads((tmp_path / "runs/python_packages/summary.json").read_text())
    assert summary["steps"] == 2
