"""Class weights, several labels, numbers: their formulas against others, and rows that cannot be used."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.config import DataConfig, DecoderConfig, EncoderConfig, FinetuneConfig, TokenizerConfig
from jaxlm.data.tokenizer import train
from jaxlm.run import prepare
from jaxlm.tasks import ClassificationConfig, MultiLabelConfig, RegressionConfig, task_class
from jaxlm.tasks.downstream import correlation, counts, texts
from jaxlm.training.step import evaluation_context


@pytest.fixture(scope="module")
def tokenizer():
    return train(["a b c d", "some text"], TokenizerConfig(kind="wordpiece", vocab_size=40))


def load(folder, rows, settings, **data):
    """Config and data of a run on these rows."""
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(**{"train": (str(path),), "validation_fraction": 0.0, "seq_len": 8, **data})
    config = FinetuneConfig(task=settings, data=data)
    return prepare.read_data(config, task_class(settings))


def task_on(config, data, tokenizer, kind=EncoderConfig):
    """The task, its random parameters, and a batch of all rows."""
    model = kind(vocab_size=tokenizer.vocab_size, dim=8, num_layers=1, num_heads=2, max_len=8)
    task = task_class(config.task)(dataclasses.replace(config, model=model), tokenizer)
    rows = task.rows(data.train, "train")
    size = len(rows)
    batch = rows.rows(np.arange(size), np.zeros(size, int))
    # the last one only fills up the batch
    valid = np.array([1] * (size - 1) + [0], np.float32)
    return task, task.init(jax.random.key(1)), batch | {"valid": valid}


def contexts():
    evaluation = evaluation_context(jnp.int32(0), None, None, 0)
    return evaluation, dataclasses.replace(evaluation, train=True)


def labelled(*labels):
    return [{"text": " ".join("abcda"[: i + 1]), "label": label} for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("pair_column", "seq_len", "told"),
    [
        (None, 5, "50.0% of the texts were longer and are cut to 5 tokens"),
        (None, 6, "full; "),
        # [CLS] a b [SEP] a b c [SEP]
        ("label", 8, "full; "),
        ("label", 7, "50.0% of the texts were longer and are cut to 7 tokens"),
    ],
)
def test_what_is_cut_is_told(tmp_path, tokenizer, pair_column, seq_len, told):
    rows = [{"text": "a b c d", "label": "a"}, {"text": "a", "label": "b"}]
    config, data = load(
        tmp_path, rows, ClassificationConfig(), seq_len=seq_len, pair_column=pair_column
    )
    task, _, _ = task_on(config, data, tokenizer)
    said = task.rows(data.train, "train").describe(4)
    assert told in said
    assert ("cut" in said) == ("cut" in told)


# ---- class weights


@pytest.mark.slow
def test_classes_weigh_what_their_weights_say_in_training_only(tmp_path, tokenizer):
    rows = labelled("x", "y", "x", "x", "x")
    settings = ClassificationConfig(class_weights=("balanced",), dropout=0.0)
    config, data = load(tmp_path, rows, settings)
    # 5 / (2 * 4) and 5 / (2 * 1), as scikit-learn computes them
    assert config.task.class_weights == ("x=0.625", "y=2.5")
    task, params, batch = task_on(config, data, tokenizer)
    evaluation, training = contexts()
    logits = task.model.apply(
        {"params": params}, **{k: batch[k] for k in ("tokens", "segment_ids", "token_types")}
    )
    each = -np.asarray(jax.nn.log_softmax(logits))[np.arange(5), batch["labels"]]
    plain = task.loss(params, batch, evaluation)
    assert float(plain.total / plain.weight) == pytest.approx(each[:4].mean(), rel=1e-5)
    still = dataclasses.replace(task.backbone, dropout=0.0, attention_dropout=0.0)
    task.model = task.model.clone(config=still)
    weights = np.array([0.625, 2.5, 0.625, 0.625])
    found = task.loss(params, batch, training)
    assert float(found.total / found.weight) == pytest.approx(
        weights @ each[:4] / weights.sum(), rel=1e-5
    )
    assert found.sums["confusion"].sum() == 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (("z=2",), "unknown class 'z'; classes: no, yes"),
        (("yess=2",), "unknown class 'yess'; did you mean 'yes'"),
        (("yes",), "'yes' is not balanced alone"),
        (("yes=-1",), "'yes=-1' is not balanced alone, or a class and a positive weight"),
        (("balanced", "yes=1"), "'balanced' is not balanced alone"),
        (("yes=1", "yes=2"), "'yes' has two weights"),
    ],
)
def test_weights_of_no_class_are_refused(tmp_path, weights, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, labelled("no", "yes"), ClassificationConfig(class_weights=weights))


def test_balancing_needs_an_example_of_each_class(tmp_path):
    settings = ClassificationConfig(class_weights=("balanced",), labels=("no", "yes", "maybe"))
    with pytest.raises(ValueError, match=r"data.train has no example of 'maybe'"):
        load(tmp_path, labelled("no", "yes"), settings)


@pytest.mark.parametrize(
    "names",
    [
        ("-1", "0", "9", "10", "a"),
        # one number, of which sets give another first in each process
        ("005", "05", "5", "-"),
        # digits that are no number to int()
        ("4", "--5", "a", "²", "①"),
        ("1" * 6000, "2" * 6000),
    ],
)
def test_names_have_one_order_whatever_they_are(names):
    for start in itertools.permutations(names):
        assert texts.in_natural_order(dict.fromkeys(start)) == names


# ---- several labels


def test_loss_and_counts_of_several_labels_are_those_of_a_loop(tmp_path, tokenizer):
    rows = labelled(["x"], [], ["y", "x"], ["z"], ["z"])
    config, data = load(tmp_path, rows, MultiLabelConfig(threshold=0.5))
    assert config.task.labels == ("x", "y", "z")
    task, params, batch = task_on(config, data, tokenizer)
    p = np.asarray(task.predict(params, batch, jax.random.key(0))["probabilities"], np.float64)
    true = np.array([[x in row["label"] for x in "xyz"] for row in rows])
    assert (batch["labels"] == true).all()
    found = task.loss(params, batch, contexts()[0])
    want = -np.where(true, np.log(p), np.log(1 - p)).mean(1)[:4].sum()
    assert float(found.total) == pytest.approx(want, rel=1e-4)
    decided = p >= 0.5
    for i in range(3):
        pairs = [(bool(a), bool(b)) for a, b in zip(true[:4, i], decided[:4, i])]
        want = [pairs.count((True, True)), sum(b for _, b in pairs), sum(a for a, _ in pairs)]
        assert found.sums["counts"][:, i].tolist() == want
    same = (decided == true).all(1)[:4].sum()
    assert float(found.means["subset_accuracy"][0]) == same
    outputs = {"probabilities": np.array([0.5, 0.2, 0.9], np.float32)}
    assert task.read([outputs], {})["labels"] == ["x", "z"]
    assert [piece.text for piece in task.preview({k: v[1] for k, v in batch.items()})][-1] == "=>"


def test_scores_of_counts_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, found = rng.random((2, 40, 5)) < np.array([0.1, 0.3, 0.5, 0.7, 0.0])
    both = np.stack([(true & found).sum(0), found.sum(0), true.sum(0)])
    for kind, ours in (("micro", counts.micro(both)), ("macro", counts.macro(both))):
        want = metrics.precision_recall_fscore_support(true, found, average=kind, zero_division=0)
        assert tuple(ours) == pytest.approx(want[:3])
    each = metrics.precision_recall_fscore_support(true, found, zero_division=0)
    for ours, want in zip(counts.scores(*both), each):
        np.testing.assert_allclose(ours, want)


def test_the_table_of_labels_has_every_score():
    text = counts.render(np.array([[2, 0], [4, 0], [3, 1]]), ["a [b]", "c"], "label")
    lines = {
        line.split("  ")[1].strip(): line.split()[-4:] for line in text.splitlines() if "0." in line
    }
    assert lines["a [b]"] == ["0.5000", "0.6667", "0.5714", "3"]
    assert lines["c"] == ["0.0000", "0.0000", "0.0000", "1"]
    assert lines["all decisions (micro)"] == ["0.5000", "0.5000", "0.5000", "4"]
    assert "rarer" in counts.render(np.ones((3, 41)), [str(i) for i in range(41)], "label")


# ---- numbers


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for size in (2, 3, 30, 300):
        x = rng.normal(size=size)
        for y in (rng.normal(size=size), 1e9 + x, np.arange(size), -(x**3)):
            assert correlation.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-7)
            ties = np.round(np.asarray(y)), np.round(x * 2)
            if np.ptp(ties[0]) and np.ptp(ties[1]):
                assert correlation.spearman(*ties) == pytest.approx(stats.spearmanr(*ties)[0])
            assert correlation.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    x = rng.integers(0, 5, 50)
    np.testing.assert_array_equal(correlation.ranks(x), stats.rankdata(x))
    assert np.isnan(correlation.pearson([1, 1, 1], [1, 2, 3]))
    assert np.isnan(correlation.spearman([1.0], [2.0]))


@pytest.mark.parametrize("kind", [EncoderConfig, DecoderConfig])
def test_a_number_is_learnt_standardised_and_exported_in_its_unit(tmp_path, tokenizer, kind):
    rows = labelled(100, 200, 300, 400.5, 0)
    config, data = load(tmp_path, rows, RegressionConfig())
    numbers = np.array([row["label"] for row in rows], float)
    assert config.task.mean == pytest.approx(numbers.mean())
    assert config.task.deviation == pytest.approx(numbers.std())
    task, params, batch = task_on(config, data, tokenizer, kind)
    # the head of a decoder has no bias, so its mean stays in the numbers
    mean = 0 if kind is DecoderConfig else numbers.mean()
    np.testing.assert_allclose(batch["target"], (numbers - mean) / numbers.std(), rtol=1e-6)
    out = np.asarray(task.predict(params, batch, jax.random.key(0))["output"])
    values = [task.read([{"output": x}], {})["value"] for x in out]
    names = ["tokens", "segment_ids"] + ["token_types"] * (kind is EncoderConfig)
    inputs = {name: batch[name] for name in names}
    exported = task.export_model().apply({"params": task.export_params(params)}, **inputs)
    np.testing.assert_allclose(np.asarray(exported)[:, 0], values, rtol=1e-4, atol=1e-3)
    loss = task.loss(params, batch, contexts()[0])
    assert float(loss.total) == pytest.approx(np.square(out - batch["target"])[:4].sum(), rel=1e-4)
    found = task.score([{"value": v} for v in values], data.train)
    errors = np.array(values) - numbers
    assert found["root_mean_squared_error"] == pytest.approx(np.sqrt(np.square(errors).mean()))
    assert found["mean_absolute_error"] == pytest.approx(np.abs(errors).mean())
    assert found["pearson"] == pytest.approx(stats.pearsonr(values, numbers)[0], abs=1e-6)


# ---- rows that cannot be used


@pytest.mark.parametrize(
    ("label", "settings", "message"),
    [
        ("x", MultiLabelConfig(), "'label' is not a list of labels"),
        (["x", "x"], MultiLabelConfig(), "duplicate label"),
        (["x", ""], MultiLabelConfig(), "empty label"),
        (None, MultiLabelConfig(), "null in column 'label'"),
        (["yess"], MultiLabelConfig(labels=("yes", "y")), "'yess'; did you mean 'yes'"),
        (["??"], MultiLabelConfig(labels=("x1", "y")), "unknown label '\\?\\?'; labels: x1, y"),
        ("3.5", RegressionConfig(), "'label' is not a number"),
        (True, RegressionConfig(), "'label' is not a number"),
        (float("nan"), RegressionConfig(), "'label' is not a finite number"),
        (None, RegressionConfig(), "null in column 'label'"),
        ("z", ClassificationConfig(labels=("x1", "y")), "unknown label 'z'; classes: x1, y"),
    ],
)
def test_a_bad_label_is_named_or_counted(tmp_path, label, settings, message):
    good = {MultiLabelConfig: ["y"], RegressionConfig: 1.0, ClassificationConfig: "y"}[
        type(settings)
    ]
    other = 2.0 if good == 1.0 else good
    rows = labelled(good, label, other)
    with pytest.raises(ValueError, match=rf"train.jsonl:2: .*{message}"):
        load(tmp_path, rows, settings)
    _, data = load(tmp_path, rows, settings, on_bad_row="skip")
    assert len(data.train) == 2
    assert "1 skipped" in data.train.describe()


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (labelled([], []), MultiLabelConfig(), r"data.train: no row has a label"),
        (
            labelled(3, 3.0),
            RegressionConfig(),
            r"data.train: all 2 numbers are 3: there is nothing",
        ),
    ],
)
def test_data_without_anything_to_learn_is_refused(tmp_path, rows, settings, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, rows, settings)


def test_settings_out_of_range_are_refused():
    for settings, wrong in (
        (MultiLabelConfig, {"threshold": 0.0}),
        (MultiLabelConfig, {"dropout": 2.0}),
        (RegressionConfig, {"deviation": 0.0}),
        (ClassificationConfig, {"label_smoothing": -1.0}),
    ):
        with pytest.raises(ValueError, match=f"task.{next(iter(wrong))}="):
            settings(**wrong)


def test_labels_of_a_csv_are_separated_by_bars(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\none,x|y\ntwo,\nthree,y\n")
    _, data = load(tmp_path, [], MultiLabelConfig(), train=(str(path),))
    assert data.train.columns["label"] == [["x", "y"], [], ["y"]]
