"""Runs of the tasks on encoders: they learn, resume, predict alike in any batch, and export what they are."""

import dataclasses
import json
import re

import numpy as np
import pytest
from runs import interrupted_after, losses, small_runs, stored_params, tiny, write_corpus

import jaxlm
from jaxlm import hf
from jaxlm.cli.main import main
from jaxlm.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    TokenizerConfig,
)
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.predict import predict
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore
from jaxlm.tasks import (
    AnsweringConfig,
    MaskedLMConfig,
    MultiLabelConfig,
    RegressionConfig,
    TaggingConfig,
)

# whole runs
pytestmark = pytest.mark.slow

MODEL = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=32, dropout=0.1)
NAMES = ("ann", "bob", "cat", "dan", "eve")
# settings by the name of the data file
TASKS = {
    "labels": MultiLabelConfig(),
    "numbers": RegressionConfig(),
    "tags": TaggingConfig(overlap=8),
    "answers": AnsweringConfig(max_answer_tokens=4, stride=6),
}
METRICS = {
    "labels": ("micro_f1", "macro_f1", "subset_accuracy"),
    "numbers": ("pearson", "spearman", "root_mean_squared_error"),
    "tags": ("f1", "precision", "recall", "accuracy", "f1_PER"),
    "answers": ("f1", "exact_match", "has_answer_f1", "no_answer_f1", "best_f1_threshold"),
}


def row_of(kind, rng):
    a, b = rng.choice(NAMES, 2, replace=False)
    days = rng.integers(0, 30, 6)
    text = f"{a} met {b} on day {days[0]}."
    if kind == "labels":
        return {"text": text, "label": sorted({a, b} & {"ann", "bob", "cat"})}
    if kind == "numbers":
        return {"text": text, "label": 1000.0 + 50 * NAMES.index(a)}
    if kind == "tags":
        # some of them are longer than a row
        text = " ".join(f"{a} met {b} on day {d} ." for d in days[: rng.integers(1, 6)])
        words = text.split()
        return {"words": words, "tags": ["B-PER" if w in NAMES else "O" for w in words]}
    context = " ".join(f"{a} met {b} on day {d}." for d in days[: rng.integers(1, 5)])
    answers = {"text": [b], "answer_start": [context.index(b)]}
    if rng.random() < 0.3:
        answers = {"text": [], "answer_start": []}
    return {"id": f"q{days[0]}", "context": context, "question": f"{a} met", "answers": answers}


def config_of(kind, folder, name, **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "base"),
        task=TASKS[kind],
        data=DataConfig(
            train=(str(folder / f"{kind}.jsonl"),), validation_fraction=0.25, seq_len=16
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        evaluation=EvaluationConfig(every=10),
        checkpoint=CheckpointConfig(every=4, keep=4),
        compute=ComputeConfig(dtype="float32"),
        steps=20,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downstream")
    write_corpus(folder)
    for kind in TASKS:
        rng = np.random.default_rng(0)
        rows = [json.dumps(row_of(kind, rng)) for _ in range(50)]
        (folder / f"{kind}.jsonl").write_text("\n".join(rows) + "\n")
    data = DataConfig(
        train=(str(folder / "corpus.txt"),),
        text_unit="line",
        seq_len=16,
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=64),
    )
    with small_runs():
        pretrain(tiny(folder, "base", steps=2, model=MODEL, task=MaskedLMConfig(), data=data))
        yield folder


@pytest.fixture(scope="module")
def whole(folder):
    """The summaries of uninterrupted runs, by kind."""
    return {kind: finetune(config_of(kind, folder, kind)) for kind in TASKS}


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_learns_and_reports_its_metrics(folder, whole, kind):
    seen = [loss for loss, _ in losses(folder / kind).values()]
    assert np.mean(seen[-4:]) < np.mean(seen[:4])
    found = whole[kind]["evaluation"]
    for name in METRICS[kind]:
        assert np.isfinite(found[name]), name


@pytest.mark.parametrize("kind", [pytest.param("tags", marks=pytest.mark.slow), "answers"])
def test_a_stopped_run_equals_an_uninterrupted_one(folder, whole, kind):
    config = config_of(kind, folder, f"{kind}_stopped")
    with interrupted_after(6):
        finetune(config)
    finetune(config)
    assert losses(folder / kind) == losses(folder / f"{kind}_stopped")
    want = stored_params(folder / kind)
    for path, value in stored_params(folder / f"{kind}_stopped").items():
        np.testing.assert_array_equal(value, want[path], err_msg=path)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(x, marks=pytest.mark.slow) if x in ("labels", "numbers") else x for x in TASKS],
)
def test_evaluation_and_prediction_do_not_depend_on_the_batch(folder, whole, kind):
    run = restore(folder / kind)
    result = evaluate(run, samples=20)
    for name, value in whole[kind]["evaluation"].items():
        assert result.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    # the scores of several labels are no sums over examples
    if kind != "labels":
        low, high = result.intervals[run.task.metric]
        assert low <= result.metrics[run.task.metric] <= high
    if kind == "tags":
        assert re.search(r"precision +recall +f1 +support", result.rendered)
    (folder / f"{kind}_new.jsonl").write_text(
        "".join(
            json.dumps(
                {k: v for k, v in json.loads(line).items() if k not in ("label", "tags", "answers")}
            )
            + "\n"
            for line in (folder / f"{kind}.jsonl").read_text().splitlines()
        )
    )
    some = dict(sources=(str(folder / f"{kind}_new.jsonl"),), purpose="predict")
    one, other = (predict(restore(folder / kind, batch_size=size, **some)) for size in (3, 8))
    assert len(one) == 50
    close(one, other)


def close(a, b):
    """Equal, but for rounding of numbers."""
    if isinstance(a, float):
        assert a == pytest.approx(b, abs=2e-5, rel=1e-5)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            close(x, y)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            close(a[name], b[name])
    else:
        assert a == b


def rows_and_outputs(folder, kind):
    """Rows of the validation data, and what the model of the run gives for them in the unit of the data."""
    run = restore(folder / kind)
    batch = run.rows.rows(np.arange(4), np.zeros(4, int))
    names = ["tokens", "segment_ids", "token_types"]
    inputs = {name: batch[name] for name in names}
    outputs = np.asarray(run.task.model.apply({"params": run.params}, **inputs))
    if kind == "numbers":
        outputs = outputs * run.task.settings.deviation + run.task.settings.mean
    return inputs, outputs


EXPORTED = {
    "labels": (
        "BertForSequenceClassification",
        "multi_label_classification",
        ["ann", "bob", "cat"],
    ),
    "numbers": ("BertForSequenceClassification", "regression", ["LABEL_0"]),
    "tags": ("BertForTokenClassification", None, ["O", "B-PER", "I-PER"]),
    "answers": ("BertForQuestionAnswering", None, None),
}


@pytest.fixture(scope="module")
def exported(folder, whole):
    for kind in TASKS:
        convert(folder / kind, folder / f"{kind}_exported")
    return folder


@pytest.mark.parametrize("kind", TASKS)
def test_an_export_says_what_it_is_and_computes_the_same(exported, kind):
    out = exported / f"{kind}_exported"
    settings = json.loads((out / "config.json").read_text())
    architecture, problem, labels = EXPORTED[kind]
    assert settings["architectures"] == [architecture]
    assert settings.get("problem_type") == problem
    if labels is not None:
        assert list(settings["id2label"].values()) == labels
    inputs, want = rows_and_outputs(exported, kind)
    got = hf.load(out, compute=ComputeConfig(dtype="float32"))(*inputs.values())
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_transformers_computes_the_same_with_an_export(exported, kind):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    out = exported / f"{kind}_exported"
    model, info = getattr(transformers, EXPORTED[kind][0]).from_pretrained(
        out, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs, want = rows_and_outputs(exported, kind)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        given = {k: torch.tensor(v).long() for k, v in zip(names, inputs.values())}
        output = model.eval()(**given)
    if kind == "answers":
        got = torch.stack([output.start_logits, output.end_logits], -1)
    else:
        got = output.logits
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4, rtol=1e-5)


def test_predictions_are_in_the_words_of_the_data(folder, whole):
    some = restore(folder / "tags", sources=(str(folder / "tags.jsonl"),), purpose="predict")
    for prediction, words in zip(predict(some), some.data.columns["words"]):
        assert prediction["text"] == " ".join(words)
        assert len(prediction["tags"]) == len(words)
        for span in prediction["spans"]:
            assert prediction["text"][span["start"] : span["end"]] == span["text"]
    some = restore(folder / "answers", sources=(str(folder / "answers.jsonl"),), purpose="predict")
    found = predict(some)
    for prediction, context in zip(found, some.data.columns["context"]):
        assert prediction["question_id"].startswith("q")
        if prediction["answer"]:
            assert context[prediction["start"] : prediction["end"]] == prediction["answer"]
            assert prediction["no_answer_score"] <= 0
        else:
            assert prediction["start"] is None
    text = folder / "plain.jsonl"
    text.write_text('{"text": "Ann met Bob, on day 3."}\n{"text": " "}\n')
    [prediction] = predict(restore(folder / "tags", sources=(str(text),), purpose="predict"))
    assert len(prediction["tags"]) == 8


def test_the_number_is_learnt_in_its_own_unit(folder, whole):
    settings = restore(folder / "numbers").task.settings
    assert 1000 < settings.mean < 1200
    assert settings.deviation == pytest.approx(70, abs=15)
    some = restore(folder / "numbers", sources=(str(folder / "numbers.jsonl"),), purpose="predict")
    assert all(900 < p["value"] < 1300 for p in predict(some))


def test_what_is_left_open_after_training_can_be_set(folder, whole, tmp_path):
    run, source = folder / "answers", folder / "answers.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    argv = ["predict", str(run), "--data", str(source), "--out", str(tmp_path / "out.jsonl")]
    assert main([*argv, "--settings", "unanswerable=True", "null_threshold=-1000"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in lines] == [""] * len(rows)
    model = jaxlm.load(run)
    every = model.predict(rows, unanswerable=False)
    assert all(found["answer"] for found in every)
    assert [line["candidate"] for line in lines] == [found["answer"] for found in every]
    none = model.predict(rows, unanswerable=True, null_threshold=-1000)
    assert not any(found["answer"] for found in none)
    with pytest.raises(ValueError, match="answering has no setting 'stride' that can be changed"):
        model.predict(rows, stride=3)
