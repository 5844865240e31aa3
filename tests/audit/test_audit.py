"""`jaxlm audit` on tiny runs, from the command to the page."""

import dataclasses
import json
import re

import pytest
from runs import small_runs, tiny

from jaxlm.audit import page
from jaxlm.cli.main import main
from jaxlm.config import CheckpointConfig, EvaluationConfig, FinetuneConfig, OptimizerConfig
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import ClassificationConfig


def outcome(**more):
    """What an audit finds, with texts that would be HTML if they were not escaped."""
    attack = {
        "members": 5,
        "others": 6,
        "auc": 0.7,
        "auc_interval": (0.6, 0.8),
        "true_positives": 0.1,
        "true_positives_interval": (0.0, 0.2),
        "curve": ((0.0, 0.1), (1.0, 1.0)),
    }
    row = {"pairs": 2, "difference": 0.1, "difference_interval": (0, 1), "favours_first": 0.5}
    return {
        "model": "<b>run",
        "step": 3,
        "task": "causal_lm",
        "privacy": {"epsilon": 8.0, "delta": 1e-5, "unit": "<i>who"},
        "membership": {
            "train_loss": 1.0,
            "heldout_loss": 2.0,
            "in_both": 3,
            "loss": attack,
        },
        "canaries": {
            "template": "<script>{}",
            "space": 10,
            "compared_with": 10,
            "most": 3.3,
            "rows": [{"text": "<script>1", "repeats": 2, "loss": 1.5, "exposure": 3.3}],
        },
        "continuation": {
            "suffix": 4,
            "rows": [
                {
                    "texts": "train",
                    "prompt": 8,
                    "number": 3,
                    "verbatim": 0.5,
                    "interval": (0, 1),
                    "tokens": 2.0,
                }
            ],
        },
        "pairs": {
            "rows": [{**row, "about": "<u>a", "measure": "p", "favours_first_interval": (0.0, 1.0)}]
        },
        **more,
    }


def test_the_page_escapes_what_it_shows_and_needs_no_network():
    text = page.page(outcome())
    for name in ("Membership", "Canaries", "Verbatim continuation", "Groups"):
        assert f">{name}</h2>" in text
    for raw in ("<b>run", "<script>1", "<script>{}", "<i>who", "<u>a"):
        assert raw not in text
    assert "&lt;script&gt;1" in text
    assert "epsilon 8 at delta 1e-05" in text
    assert "3 of the held-out texts are in the training data too" in text
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    short = page.page(outcome(privacy=None, canaries=None, pairs=None, continuation=None))
    assert "trained without differential privacy" in short
    assert "Groups" not in short


# ---- whole audits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model that has learnt its lines by heart, two of them canaries, and one that has not."""
    folder = tmp_path_factory.mktemp("audit")
    words = ["red", "blue", "green", "old", "new", "big", "cat", "dog", "sun", "sea"]
    line = lambda i: " ".join(words[(i * 7 + i * i * j) % 10] for j in range(1, 6)) + f" {i}"
    (folder / "plain.txt").write_text("\n".join(line(i) for i in range(24)) + "\n")
    (folder / "held.txt").write_text("\n".join(line(i) for i in range(30, 54)) + "\n")
    made = ["audit", "canaries", str(folder / "c.json"), "--template", "pin {} {}"]
    made += ["--repeats", "12", "--into", str(folder / "plain.txt"), "--out"]
    assert main([*made, str(folder / "corpus.txt")]) == 0
    with small_runs():
        for name, steps in (("run", 400), ("fresh", 1)):
            config = tiny(folder, name, steps=steps, log_every=100, batch_size=16)
            pretrain(
                dataclasses.replace(
                    config,
                    model=dataclasses.replace(config.model, dim=32, dropout=0.0, max_len=40),
                    data=dataclasses.replace(config.data, validation_fraction=0.0, seq_len=40),
                    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
                    checkpoint=CheckpointConfig(every=1000),
                    evaluation=EvaluationConfig(every=1000),
                )
            )
        yield folder


@pytest.mark.slow
def test_a_model_that_has_learnt_its_lines_by_heart(folder, capsys):
    pairs = {"templates": ["{group} cat"], "groups": {"a": ["red"], "b": ["blue"]}}
    (folder / "p.json").write_text(json.dumps(pairs))
    args = ["audit", str(folder / "run"), "--train", str(folder / "plain.txt")]
    args += ["--heldout", str(folder / "held.txt"), "--canaries", str(folder / "c.json")]
    args += ["--reference", str(folder / "fresh"), "--pairs", str(folder / "p.json")]
    args += ["--prompt-lengths", "6", "10", "--suffix", "4", "--bootstrap", "50"]
    assert main(args) == 0
    assert "the audit is in" in capsys.readouterr().out
    found = json.loads((folder / "run" / "audit.json").read_text())
    assert found["membership"]["loss"]["auc"] > 0.9
    assert found["membership"]["likelihood_ratio"]["auc"] > 0.9
    by = {(r["texts"], r["prompt"]): r["verbatim"] for r in found["continuation"]["rows"]}
    assert by["train", 10] > by["heldout", 10]
    canary = found["canaries"]["rows"][0]
    assert canary["exposure"] > 4
    assert found["canaries"]["compared_with"] == 100
    assert found["pairs"]["rows"][0]["pairs"] == 1
    assert (folder / "run" / "audit.html").read_text().startswith("<!")
    fresh = ["audit", str(folder / "fresh"), "--canaries", str(folder / "c.json")]
    assert main([*fresh, "--out", str(folder / "f.html")]) == 0
    found = json.loads((folder / "f.json").read_text())
    assert found["canaries"]["rows"][0]["exposure"] < canary["exposure"]
    held = str(folder / "held.txt")
    train = ["--train", str(folder / "plain.txt"), "--heldout"]
    (folder / "one.txt").write_text("red cat\n")
    for bad, message in (
        (["--heldout", "x"], "heldout has no effect alone"),
        ([], "nothing to audit"),
        (["--train", "x", "--reference", "y"], "reference has no effect without"),
        (["--train", held, "--prompt-lengths", "90"], "need 107 places, and the model has 40"),
        (["--train", held, "--prompt-lengths", "26", "--suffix", "10"], "no text has 26 + 10"),
        (["--canaries", str(folder / "none.json")], "No such file"),
        ([*train, str(folder / "plain.txt")], "all of it is in"),
        ([*train, str(folder / "one.txt")], "1 texts, and membership needs 10"),
        ([*train, "x", "--reference", str(folder / "run")], "that is the model itself"),
        (["--pairs", str(folder / "p.json"), "--out", "x.txt"], "ends in .html"),
    ):
        assert main(["audit", str(folder / "run"), *bad]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_classifier(folder, capsys):
    rows = [{"text": f"the {w} {i}", "label": w} for i in range(20) for w in ("cat", "dog")]
    for name, part in (("in", rows[:24]), ("out", rows[24:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    data = dataclasses.replace(
        tiny(folder).data, train=(str(folder / "in.jsonl"),), validation_fraction=0.0
    )
    finetune(
        FinetuneConfig(
            run_dir=str(folder / "classes"),
            init=str(folder / "run"),
            task=ClassificationConfig(),
            data=data,
            steps=2,
            optimizer=OptimizerConfig(warmup_steps=1),
        )
    )
    (folder / "p.csv").write_text("first,second\nthe cat,the dog\n")
    args = ["audit", str(folder / "classes"), "--train", str(folder / "in.jsonl")]
    args += ["--heldout", str(folder / "out.jsonl"), "--pairs", str(folder / "p.csv")]
    assert main([*args, "--bootstrap", "20"]) == 0
    found = json.loads((folder / "classes" / "audit.json").read_text())
    assert found["membership"]["loss"]["members"] == 24
    by = {row["measure"]: row["difference"] for row in found["pairs"]["rows"]}
    assert by["probability of cat"] == pytest.approx(-by["probability of dog"], abs=1e-5)
    assert "continuation" not in found
    assert main([*args, "--bootstrap", "20", "--reference", str(folder / "run")]) == 2
    assert "their losses cannot be compared" in capsys.readouterr().err
    capsys.readouterr()
    canaries = ["audit", str(folder / "classes"), "--canaries", str(folder / "c.json")]
    assert main(canaries) == 2
    assert "canaries are for causal models" in capsys.readouterr().err
