"""A run of text to text from nothing: it learns, and writes the same wherever its model is loaded."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from runs import small_runs
from test_text_to_text_task import MODEL, reversed_pairs

import jaxlm
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
)
from jaxlm.hf import loading
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.predict import predict
from jaxlm.run.restore import restore
from jaxlm.tasks.downstream.text_to_text import TextToTextConfig

# whole runs
pytestmark = pytest.mark.slow

pytest.importorskip("sacrebleu")
PREFIX = "a b "


def write(folder):
    """Two parallel files, and the validation pairs as a table."""
    train = list(reversed_pairs(800))
    for name, side in (("train.one", 0), ("train.two", 1)):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in train))
    rows = ["source\ttarget", *("\t".join(pair) for pair in reversed_pairs(30, seed=9))]
    # a pair without a target is skipped and counted
    (folder / "dev.tsv").write_text("\n".join([*rows, "a b\t"]) + "\n")


def config_of(folder, name="reverse", **task):
    return FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init="none",
        # with the usual 0.02 a model of this width takes thousands of steps to attend to its source
        model=dataclasses.replace(MODEL, init_std=0.15),
        task=TextToTextConfig(
            **{"prefix": PREFIX, "score": "translation", "num_beams": 1, "eval_samples": 10} | task
        ),
        data=DataConfig(
            train=(f"parallel:{folder}/train.one,{folder}/train.two",),
            validation=(f"{folder}/dev.tsv",),
            tokenizer=TokenizerConfig(kind="word", vocab_size=64),
            seq_len=32,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=20, b2=0.98),
        evaluation=EvaluationConfig(every=100),
        checkpoint=CheckpointConfig(every=1000),
        mesh=MeshConfig(),
        steps=200,
        batch_size=16,
        log_every=50,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_to_text")
    write(folder)
    with small_runs():
        finetune(config_of(folder))
    return folder / "reverse"


def test_it_learns_from_nothing_and_tells_its_scores(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["evaluation"]["bleu"] > 90
    assert summary["evaluation"]["chrf"] > 90
    assert "tok:13a" in summary["signatures"]["bleu"]
    assert set(summary["best"]) == {"step", "sample_bleu"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = {row["step"]: row for row in rows if "eval/loss" in row}
    assert "eval/sample_bleu" in evaluations[100]
    assert "eval/bleu" not in evaluations[100]
    assert evaluations[200]["eval/bleu"] == summary["evaluation"]["bleu"]
    # the sample is a part of all
    assert evaluations[200]["eval/sample_bleu"] > 80


@pytest.fixture(scope="module")
def predicted(run):
    restored = restore(run)
    return dict(zip(restored.data.columns["source"], [p["text"] for p in predict(restored)]))


def test_the_loaded_run_writes_what_the_task_predicts(run, predicted):
    model = jaxlm.load(run)
    assert model.kind == "encoder_decoder"
    assert model.prefix == PREFIX
    assert model.defaults.max_new_tokens == 31
    sources = list(predicted)[:12]
    assert model.generate(sources) == [predicted[source] for source in sources]


def test_the_exported_model_writes_what_the_task_predicts(run, predicted, tmp_path):
    convert(run, tmp_path / "out")
    model = jaxlm.load(tmp_path / "out")
    assert (model.before, model.after) == ((), (model.tokenizer.eos_id,))
    assert (model.prefix, model.defaults.max_new_tokens) == (PREFIX, 31)
    sources = list(predicted)[:12]
    assert model.generate(sources) == [predicted[source] for source in sources]


def test_results_do_not_depend_on_the_size_of_batches(run, predicted):
    restored = restore(run, batch_size=8)
    again = [p["text"] for p in predict(restored)]
    assert again == list(predicted.values())
    assert len(again) == 30
    assert "1 skipped: empty text" in restored.data.describe()


def test_evaluation_is_that_of_the_end_of_the_run_and_predictions_need_no_targets(run, tmp_path):
    summary = json.loads((run / "summary.json").read_text())
    result = evaluate(restore(run))
    for name in ("loss", "bleu", "chrf"):
        assert result.metrics[name] == pytest.approx(summary["evaluation"][name], rel=1e-5), name
    assert result.signatures == summary["signatures"]
    (tmp_path / "new.one").write_text("a b c d\nf e d c\n")
    new = restore(run, sources=(f"parallel:{tmp_path}/new.one",), purpose="predict")
    found = predict(new)
    assert [p["text"] for p in found] == ["d c b a", "c d e f"]
    assert [p["id"] for p in found] == [f"{tmp_path}/new.one:{i}" for i in (1, 2)]


@pytest.mark.parametrize("beams", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_predictions_are_the_same_on_a_mesh(run, beams, monkeypatch):
    from jaxlm.run import folder as run_folder

    read = run_folder.read_config

    def with_beams(*args):
        config = read(*args)
        return dataclasses.replace(config, task=dataclasses.replace(config.task, num_beams=beams))

    monkeypatch.setattr(run_folder, "read_config", with_beams)
    found = [
        predict(restore(run, batch_size=8, mesh=mesh))
        for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2))
    ]
    one, several = ([p["text"] for p in predictions] for predictions in found)
    assert one == several
    np.testing.assert_allclose(*([p["score"] for p in ps] for ps in found), atol=1e-4)


def test_a_run_continues_from_a_run_with_its_head(run, tmp_path):
    """The output bias and the tokenizer come along: without training, the scores are those of the first run."""
    config = dataclasses.replace(
        config_of(pathlib.Path(run).parent, "again"),
        init=str(run),
        model=None,
        steps=1,
        optimizer=OptimizerConfig(learning_rate=1e-9, warmup_steps=0),
    )
    with small_runs():
        summary = finetune(config)
    first = json.loads((run / "summary.json").read_text())["evaluation"]
    assert summary["evaluation"]["bleu"] == pytest.approx(first["bleu"])


def test_a_pretrained_head_of_an_encoder_decoder_is_loaded(tmp_path):
    """BART's bias of the logits and T5's untied table were dropped before."""
    import jax

    from jaxlm.models import heads
    from jaxlm.run import init_from

    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for name in ("bart", "t5_v1_1"):
        folder = pathlib.Path(__file__).parents[1] / "golden" / name
        description = loading.describe(folder)
        model = heads.Seq2SeqLM(description.config)
        abstract = jax.eval_shape(lambda m=model: heads.init_params(m, jax.random.key(0)))
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract
        )
        with pytest.MonkeyPatch.context() as patch:
            # the golden folders have no tokenizer
            patch.setattr(loading, "read_tokenizer", lambda _: object())
            params = init_from.of_hf(folder).load(target)
        expected = loading.load(folder).params["head"]
        assert expected, name
        for key, value in expected.items():
            np.testing.assert_array_equal(params["head"][key], value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "set model in the config, and data.tokenizer"),
        ({"model": dataclasses.replace(MODEL, max_len=16)}, "max_len=16 of the config"),
    ],
)
def test_nothing_to_start_from_is_one_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        finetune(dataclasses.replace(config_of(tmp_path), **changes))
