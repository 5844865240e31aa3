"""The text VAE with classes: labels in the rows, the loss against its parts, and a run with predictions."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from test_text_vae import WORDS, built, texts, tok

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.documents import tokenize
from jaxlm.data.loader import BatchAt
from jaxlm.data.records import Records
from jaxlm.run import latents
from jaxlm.run.evaluate import evaluate
from jaxlm.run.predict import predict
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import find, restore, with_rows
from jaxlm.tasks import LabelledVAEConfig
from jaxlm.tasks.labelled_vae import LabelledVAE
from jaxlm.tasks.task import Context, loss_sums, metrics
from jaxlm.tasks.vae import TextVAE
from jaxlm.training import predictions

CLASSES = ("no", "yes")


def task_of(**settings):
    config = built().config
    settings = dict(labels=CLASSES) | settings
    return LabelledVAE(dataclasses.replace(config, task=LabelledVAEConfig(**settings)), tok())


def records(labels=None, every=3):
    """The texts, of which every third has a label: its length is even or not."""
    found = [text.strip() for text in texts()]
    if labels is None:
        labels = [
            CLASSES[len(t.split()) % 2] if i % every == 0 else None for i, t in enumerate(found)
        ]
    return Records(
        {"text": found, "label": labels}, [f"f:{i}" for i in range(len(found))], RowCounts()
    )


def labels_by_text(batch):
    """The class of each text of a batch, by its text."""
    found = {}
    for i in range(len(batch["tokens"])):
        segments = batch["decoder_segment_ids"][i]
        assert (batch["labels"][i, segments.max() :] == -1).all()
        for number in range(1, segments.max() + 1):
            text = tok().decode(batch["targets"][i][segments == number])
            label = int(batch["labels"][i, number - 1])
            assert found.setdefault(text, label) == label
    return found


def whole(rows):
    return rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))


def test_rows_have_the_label_of_each_text():
    data = records()
    want = {
        text: -1 if label is None else CLASSES.index(label)
        for text, label in zip(data.columns["text"], data.columns["label"])
    }
    assert labels_by_text(whole(task_of().rows(data, "validation"))) == want
    # in training, labelled and other texts are in rows of their own
    rows = task_of(labelled_fraction=0.5).rows(data, "train")
    batch = whole(rows)
    found = labels_by_text(batch)
    assert found.items() <= want.items()
    labelled = (batch["labels"] >= 0).any(1)
    assert abs(labelled.mean() - 0.5) < 0.5 / len(rows) + 1e-6
    exists = np.arange(batch["labels"].shape[1]) < batch["segment_ids"].max(1, keepdims=True)
    np.testing.assert_array_equal(batch["labels"] >= 0, labelled[:, None] & exists)


def test_a_row_to_predict_holds_the_text_of_its_index():
    rows = task_of().rows(records(), "predict")
    batch = rows.rows(np.array([5, 0]), np.zeros(2, int))
    for i, index in enumerate((5, 0)):
        real = batch["decoder_segment_ids"][i] > 0
        assert tok().decode(batch["targets"][i][real]) == texts()[index].strip()


def test_a_text_that_does_not_fit_is_skipped_and_the_others_keep_their_index():
    task = task_of()
    data = dataclasses.replace(task.config.data, on_bad_row="skip")
    task = LabelledVAE(dataclasses.replace(task.config, data=data), tok())
    some = records()
    some.columns["text"][3] = "tea " * 40
    assert task.examples(task.rows(some, "validation")) == len(some) - 1
    rows = task.rows(some, "predict")
    assert sum(some.counts.skipped.values()) == 2
    # each prediction is that of its own record
    indices, found = predictions.predict(
        Echo(),
        lambda params, batch, key: batch,
        None,
        rows,
        some,
        batch_size=8,
        mesh=sharding.make_mesh(MeshConfig(), jax.devices()[:1]),
    )
    assert indices == [i for i in range(len(some)) if i != 3]
    assert found == [{"text": texts()[i].strip()} for i in indices]
    none = some.take([3, 3])
    assert len(task.rows(none, "predict")) == 0
    with pytest.raises(
        ValueError, match=r"no text can be used; .*6 skipped: a text that is longer"
    ):
        task.rows(none, "validation")


class Echo:
    """A task that predicts the text that it reads."""

    padded = ()

    def read(self, outputs, record):
        real = outputs[0]["decoder_segment_ids"] > 0
        return {"text": tok().decode(outputs[0]["targets"][real])}


@functools.cache
def computed():
    """The losses of a batch as a VAE and as one with classes, and what the classifier says, with gradients."""
    task = task_of(class_weight=3.0)
    params = jax.jit(task.init)(jax.random.key(0))
    batch = BatchAt(task.rows(records(), "validation"), 4, 0)(0)
    batch["valid"][-1] = 0
    context = Context(jax.random.key(1), jnp.int32(50))

    @jax.jit
    def run(params, batch):
        loss, posterior = TextVAE.bound(task, params, batch, context)
        whole = task.loss(params, batch, context)
        logits = task._logits(params, posterior.mean)
        return loss.total, whole, logits

    @jax.jit
    def gradient(params, batch):
        return jax.grad(lambda p: task.loss(p, batch, context).total)(params)

    return task, params, batch, run, gradient


def test_the_loss_adds_the_cross_entropy_of_labelled_texts():
    _, params, batch, run, _ = computed()
    bound, loss, logits = run(params, batch)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    want = count = 0
    confusion = np.zeros((2, 2))
    for i in range(3):
        for m, label in enumerate(batch["labels"][i]):
            if label >= 0:
                want -= log_p[i, m, label]
                count += 1
                confusion[label, np.argmax(logits[i, m])] += 1
    assert count >= 2
    np.testing.assert_allclose(loss.total, bound + 3 * want, rtol=1e-5)
    np.testing.assert_allclose(loss.means["class_loss"], (want, count), rtol=1e-5)
    np.testing.assert_array_equal(loss.sums["confusion"], confusion)


def test_without_labels_it_is_the_vae():
    _, params, batch, run, gradient = computed()
    batch = {**batch, "labels": np.full_like(batch["labels"], -1)}
    bound, loss, _ = run(params, batch)
    np.testing.assert_array_equal(loss.total, bound)
    for x in jax.tree.leaves(gradient(params, batch)["head"]["classes"]):
        assert not np.any(x)


def test_without_labelled_texts_there_are_no_scores():
    task, params, batch, run, _ = computed()
    batch = {**batch, "labels": np.full_like(batch["labels"], -1)}
    sums = jax.device_get(loss_sums(run(params, batch)[1]))
    found = metrics(task, sums)
    assert "kl" in found
    assert not [name for name in found if name.startswith("class_")]
    assert task.render(sums["sums"]) is None


def test_the_encoder_learns_from_labels():
    _, params, batch, _, gradient = computed()
    none = {**batch, "labels": np.full_like(batch["labels"], -1)}
    pairs = [gradient(params, x)["head"]["posterior"]["kernel"] for x in (batch, none)]
    assert np.abs(np.subtract(*pairs)).max() > 1e-4


def test_plain_texts_are_read_too():
    rows = task_of().rows(tokenize(texts(), tok()), "predict")
    assert "labels" not in rows.rows(np.zeros(1, int), np.zeros(1, int))


def test_classes_are_trained_with_the_encoder():
    task = task_of(scheme="encoder_first")
    groups = task.phases()[0].groups
    assert "head/classes/*" in groups[0].params
    assert groups[1].frozen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(class_weight=0.0), r"class_weight=0\.0 must be positive"),
        (dict(labelled_fraction=1.0), r"labelled_fraction=1\.0 is not between 0 and 1"),
        (dict(long_texts="cut"), "a label is of a whole text"),
    ],
)
def test_bad_settings_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelledVAEConfig(**settings)


def test_bad_data_is_rejected():
    with pytest.raises(ValueError, match=r"data\.train has no labels"):
        LabelledVAE.resolve(LabelledVAEConfig(), records([None] * 40))
    with pytest.raises(ValueError, match="no text of the validation data has a label"):
        task_of().rows(records([None] * 40), "validation")
    empty = records()
    empty.columns["text"][2] = " "
    with pytest.raises(ValueError, match="f:2: a text without tokens"):
        task_of().rows(empty, "validation")
    long = records()
    long.columns["text"][3] = "tea " * 40
    with pytest.raises(ValueError, match=r"f:3: .*40 tokens, 30 fit: raise data.seq_len"):
        task_of().rows(long, "predict")
    scaled = built(model=dict(mean_scale=0.5)).config
    config = dataclasses.replace(scaled, task=LabelledVAEConfig(labels=CLASSES))
    with pytest.raises(ValueError, match=r"model\.mean_scale=0\.5 does not fit task labelled_vae"):
        LabelledVAE(config, tok())


@pytest.mark.slow
def test_a_run_learns_classes_and_predicts_them(tmp_path):
    """Texts of either class have words of their own, and a tenth of them is labelled."""
    rng = np.random.default_rng(0)
    halves = WORDS[:15], WORDS[15:]
    rows = [
        {"text": " ".join(rng.choice(halves[i % 2], 5)), "label": CLASSES[i % 2]}
        for i in range(400)
    ]
    train = [row if i < 40 else {"text": row["text"]} for i, row in enumerate(rows[:360])]
    for name, part in (("train", train), ("valid", rows[360:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    config = built().config
    config = runs.tiny(
        tmp_path,
        model=dataclasses.replace(
            config.model,
            encoder=dataclasses.replace(config.model.encoder, vocab_size=None),
            decoder=dataclasses.replace(config.model.decoder, vocab_size=None),
        ),
        task=LabelledVAEConfig(importance_samples=2, importance_texts=4, labelled_fraction=0.3),
        data=dataclasses.replace(
            config.data,
            train=(str(tmp_path / "train.jsonl"),),
            validation=(str(tmp_path / "valid.jsonl"),),
            tokenizer=dataclasses.replace(config.data.tokenizer, kind="word", vocab_size=64),
        ),
        steps=40,
        evaluation=dataclasses.replace(config.evaluation, every=40),
    )
    with runs.small_runs() as patch:
        patch.setattr(TextVAE, "sample", lambda *_: None)
        summary = pretrain(config)
    assert summary["evaluation"]["class_accuracy"] > 0.95
    assert summary["evaluation"]["class_macro_recall"] > 0.95
    folder = tmp_path / "run"
    long = tmp_path / "long.jsonl"
    longest = json.dumps({"text": "tea " * 40, "label": "yes"})
    long.write_text(f"{longest}\n{(tmp_path / 'valid.jsonl').read_text()}")
    found = find(
        folder, on_bad_row="skip", mesh=sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    )
    result = evaluate(with_rows(found, (str(long),), "validation"), predict=True)
    assert result.examples == 40
    assert result.metrics["class_accuracy"] == pytest.approx(
        summary["evaluation"]["class_accuracy"]
    )
    assert "yes" in result.rendered
    # rows of several texts have no prediction each
    assert result.predictions == []
    answers = predict(restore(folder, purpose="predict"))
    assert np.mean([a["label"] == r["label"] for a, r in zip(answers, rows[360:])]) > 0.95
    assert np.isfinite(latents.load(folder).log_likelihoods([rows[0]["text"]])).all()
