"""The training loop: meshes, evaluation, early stopping, errors."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from runs import (
    as_config_file,
    interrupted_after,
    losses,
    small_runs,
    stored_params,
    tiny,
    write_corpus,
    write_labelled,
)

from jaxlm.checkpoint import format as files
from jaxlm.checkpoint import store
from jaxlm.cli import main as cli
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
)
from jaxlm.data import shard_writer
from jaxlm.data import tokenizer as tokenizers
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore
from jaxlm.tasks import ClassificationConfig, MaskedLMConfig
from jaxlm.training import loop


@pytest.fixture(scope="module", autouse=True)
def meshes():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    write_corpus(folder)
    write_labelled(folder)
    return folder


@pytest.fixture(scope="module")
def base(folder):
    config = tiny(folder, "base")
    return config, pretrain(config)


def test_a_run_learns_and_writes_a_complete_folder(folder, base):
    _, summary = base
    seen = losses(folder / "base")
    assert sorted(seen) == list(range(1, 13))
    assert seen[12][0] < seen[1][0] - 0.3
    for name in ("config.json", "tokenizer.json", "metrics.jsonl", "summary.json"):
        assert (folder / "base" / name).stat().st_size > 0, name
    assert list((folder / "base").glob("events*"))
    written = json.loads((folder / "base/summary.json").read_text())
    assert written["steps"] == 12 == summary["steps"]
    assert written["evaluation"]["loss"] == pytest.approx(summary["evaluation"]["loss"])
    assert written["best"]["step"] in (6, 12)


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh(folder, base):
    config = tiny(folder, "moved", mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    with interrupted_after(5):
        pretrain(config)
    pretrain(dataclasses.replace(config, mesh=MeshConfig(data=1, fsdp=4)))
    expected, found = losses(folder / "base"), losses(folder / "moved")
    assert sorted(found) == sorted(expected)
    np.testing.assert_allclose(
        [found[s] for s in found], [expected[s] for s in found], rtol=1e-5, atol=1e-5
    )
    one, other = stored_params(folder / "base"), stored_params(folder / "moved")
    for path, value in one.items():
        np.testing.assert_allclose(other[path], value, atol=1e-5, err_msg=path)


def test_another_config_in_the_folder_is_rejected_by_field(folder, base):
    config, _ = base
    changed = dataclasses.replace(
        config, batch_size=16, optimizer=dataclasses.replace(config.optimizer, b1=0.5)
    )
    with pytest.raises(ValueError, match=r"batch_size: 8 -> 16") as error:
        pretrain(changed)
    assert "optimizer.b1: 0.9 -> 0.5" in str(error.value)


def test_dry_run_compiles_and_writes_nothing(folder, capsys):
    summary = pretrain(tiny(folder, "dry", dry_run=True))
    assert summary["temporary_bytes"] > 0
    assert not (folder / "dry").exists()
    # which attention the step has
    assert "attention" in (text := capsys.readouterr().out) and "xla" in text


def test_a_source_that_disappears_during_the_run_loses_no_checkpoint(folder, base, capsys):
    config = tiny(folder, "gone")
    tokenizer = tokenizers.load(folder / "base/tokenizer.json")
    shard_writer.write(folder / "shards", config.data, tokenizer, command="", processes=0)
    data = dataclasses.replace(config.data, train=(str(folder / "shards"),))
    config = as_config_file(dataclasses.replace(config, data=data), folder / "gone.py")
    there, away = folder / "shards/validation-00000.tokens", folder / "away"
    record = loop._Loop._record

    def losing(self, segment, step, metrics):
        record(self, segment, step, metrics)
        if step == 5:
            there.rename(away)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "_record", losing)
        assert cli.main(["train", str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {there}: cannot be read any more")
    assert store.describe(folder / "gone")["steps"] == [4]
    away.rename(there)
    assert cli.main(["train", str(config)]) == 0
    # the text of the base run, in shards
    assert losses(folder / "gone") == losses(folder / "base")


def test_an_indivisible_batch_is_rejected(folder):
    with pytest.raises(ValueError, match=r"batch_size=12 is not a multiple of the 8 devices"):
        pretrain(tiny(folder, "odd", batch_size=12, mesh=MeshConfig(data=8)))


def test_divergence_ends_the_run_with_an_error(folder, capsys):
    config = tiny(
        folder,
        "diverged",
        optimizer=OptimizerConfig(
            learning_rate=1e15, warmup_steps=0, clip_norm=0.0, weight_decay=0.0
        ),
        max_bad_steps=3,
    )
    with pytest.raises(loop.Diverged, match="3 steps in a row"):
        pretrain(config)
    shutil.rmtree(folder / "diverged")
    assert cli.main(["train", str(as_config_file(config, folder / "diverged.py"))]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 3 steps in a row were not finite")


def test_early_stopping_and_the_best_checkpoint(folder):
    # so high a rate that the first evaluation is the best
    config = tiny(
        folder,
        "early",
        steps=40,
        optimizer=OptimizerConfig(learning_rate=5.0, warmup_steps=0, schedule="constant"),
        evaluation=EvaluationConfig(every=2, patience=2),
        checkpoint=CheckpointConfig(every=100, keep=1),
    )
    summary = pretrain(config)
    assert summary["steps"] < 40
    kept = {int(p.name) for p in (folder / "early/checkpoints").iterdir() if p.name.isdecimal()}
    assert kept == {summary["best"]["step"], summary["steps"]}


def fine_tuned(folder, name, **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "base"),
        task=ClassificationConfig(),
        data=DataConfig(
            train=(str(folder / "labelled.jsonl"),), validation_fraction=0.2, seq_len=16
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        evaluation=EvaluationConfig(every=10),
        steps=10,
        batch_size=8,
        log_every=5,
    )
    return finetune(dataclasses.replace(config, **changes))


def test_head_only_does_not_change_the_backbone(folder, base):
    summary = fine_tuned(folder, "head", train_only="head")
    before, after = stored_params(folder / "base"), stored_params(folder / "head")
    shared = [name for name in after if name.startswith("backbone/")]
    assert shared
    for name in shared:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert set(summary["evaluation"]) >= {"accuracy", "macro_f1", "matthews", "loss"}
    scores = evaluate(restore(folder / "head"))
    assert (scores.step, scores.examples) == (10, 13)
    assert "accuracy" in scores.rendered
    for name, value in summary["evaluation"].items():
        np.testing.assert_allclose(scores.metrics[name], value, rtol=1e-5, err_msg=name)
    # all sixty texts, in a file whose columns have other names
    rows = [json.loads(line) for line in (folder / "labelled.jsonl").read_text().splitlines()]
    other = folder / "other.jsonl"
    other.write_text(
        "".join(json.dumps({"sentence": r["text"], "label": r["label"]}) + "\n" for r in rows)
    )
    # filters of training texts do not apply to these
    config = json.loads((folder / "head/config.json").read_text())
    config["data"] |= {"decontaminate": [str(other)], "max_documents": 3, "weights": [1.0, 2.0]}
    config["data"]["train"] *= 2
    (folder / "head/config.json").write_text(json.dumps(config))
    renamed = {"text_column": "sentence"}
    scores = evaluate(restore(folder / "head", sources=(str(other),), columns=renamed))
    assert scores.examples == 60
    assert scores.metrics["loss"] != summary["evaluation"]["loss"]
    assert json.loads((folder / "head/config.json").read_text())["task"]["labels"] == ["neg", "pos"]


@pytest.mark.slow
def test_from_scratch_has_the_same_shapes_and_other_weights(folder, base):
    fine_tuned(folder, "scratch", init="none", init_like=str(folder / "base"), steps=2)
    before, scratch = stored_params(folder / "base"), stored_params(folder / "scratch")
    backbone = {k for k in before if k.startswith("backbone/")}
    assert {k: scratch[k].shape for k in backbone} == {k: before[k].shape for k in backbone}
    name = "backbone/stack/blocks/mlp/up"
    # two draws of the same spread are about 1.13 spreads apart; a fine-tuned weight stays near where it was
    assert np.abs(scratch[name] - before[name]).mean() > 0.02


@pytest.mark.slow
def test_masked_language_model_and_pair_classification(folder):
    model = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=16)
    data = tiny(folder).data
    config = tiny(
        folder,
        "bert",
        model=model,
        task=MaskedLMConfig(),
        data=dataclasses.replace(data, tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=80)),
    )
    summary = pretrain(config)
    assert summary["evaluation"]["loss"] < np.log(80)
    pairs = folder / "pairs.jsonl"
    rows = [{"a": f"day {i}", "b": f"day {i + i % 2}", "label": i % 2} for i in range(40)]
    pairs.write_text("".join(json.dumps(r) + "\n" for r in rows))
    result = fine_tuned(
        folder,
        "pairs",
        init=str(folder / "bert"),
        data=DataConfig(
            train=(str(pairs),),
            validation_fraction=0.2,
            seq_len=16,
            text_column="a",
            pair_column="b",
        ),
    )
    assert 0 <= result["evaluation"]["accuracy"] <= 1


def test_schedule_free_runs_store_the_average(folder):
    config = tiny(folder, "schedule_free", steps=3)
    pretrain(
        dataclasses.replace(
            config,
            optimizer=OptimizerConfig(
                name="schedule_free_adamw", schedule="constant", learning_rate=1e-2, warmup_steps=1
            ),
        )
    )
    arrays = files.read_manifest(folder / "schedule_free/checkpoints/3")["arrays"]
    name = "backbone/stack/blocks/mlp/up"
    assert arrays["average"].keys() == arrays["params"].keys()
    assert arrays["average"][name]["sum"] != arrays["params"][name]["sum"]
