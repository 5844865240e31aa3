"""Evaluation: intervals by resampling, perplexity with a sliding window, models in the Hugging Face layout."""

import json
import math

import jax
import numpy as np
import pytest
from runs import small_runs, tiny, write_corpus

import jaxlm
from jaxlm import sharding
from jaxlm.cli.main import main
from jaxlm.config import MeshConfig, TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export
from jaxlm.run import bootstrap, perplexity, restore
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.pretrain import pretrain

# whole runs: too long for a quick pass
pytestmark = pytest.mark.slow

TEXTS = ["the cat sat on the mat, and the dog did not.", "a b", "was für ein Tag! 天气 " * 3]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """An untrained decoder of 16 tokens in the Hugging Face layout, and a file of texts."""
    root = tmp_path_factory.mktemp("decoder")
    tokenizer = tokenizers.train(TEXTS * 3, TokenizerConfig(kind="byte_bpe", vocab_size=280))
    config = jaxlm.DecoderConfig(
        **jaxlm.llama_style(),
        vocab_size=tokenizer.vocab_size,
        dim=16,
        num_layers=1,
        num_heads=2,
        max_len=16,
    )
    model = jaxlm.CausalLM(config)
    params = jax.tree.map(lambda x: 3 * x, jaxlm.init_params(model, jax.random.key(1)))
    export.save(root / "hf", model, params, tokenizer=tokenizer)
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    return root


def one_device():
    return sharding.make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.mark.parametrize("window", [2, 5, 8])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 30])
def test_windows_score_every_token_once_with_enough_context(window, length):
    for stride in range(1, window):
        found = perplexity.windows(length, window, stride)
        scored = [i for begin, end, first in found for i in range(first, end)]
        assert scored == list(range(1, length))
        for begin, end, first in found:
            assert end - begin <= window
            context = first - begin
            assert context >= min(window - stride, first)
    for stride in (0, window):
        with pytest.raises(ValueError, match=f"stride={stride} is out of range: 1 to {window - 1}"):
            perplexity.windows(length, window, stride)


def brute_force(model, texts, stride):
    """Loss in nats of each text by one product for each token, following transformers' guide."""
    tokenizer, size = model.task.tokenizer, model.config.data.seq_len
    losses = []
    for text in texts:
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        total, previous = 0.0, 0
        for begin in range(0, len(ids), stride):
            end = min(begin + size, len(ids))
            tokens = np.array([ids[begin:end]])
            logits = model.task.model.apply({"params": model.params}, tokens)
            log_probs = jax.nn.log_softmax(logits.astype(np.float32))[0]
            for position in range(max(previous, 1), end):
                total -= float(log_probs[position - begin - 1, ids[position]])
            previous = end
            if end == len(ids):
                break
        losses.append(total)
    return losses


@pytest.mark.slow
def test_perplexity_is_that_of_the_guide_and_is_counted_by_tokens_words_and_bytes(decoder, capsys):
    model = restore.find(decoder / "hf", mesh=one_device()).load("predict")
    assert model.config.data.seq_len == 16
    texts = [*TEXTS, TEXTS[0] * 4]
    for stride in (3, 8, 15):
        result = perplexity.perplexity(model, texts, stride=stride, samples=50)
        np.testing.assert_allclose(result.table[:, 0], brute_force(model, texts, stride), rtol=1e-5)
    tokens = sum(len(model.task.tokenizer.encode(text)) for text in texts)
    words = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert (result.tokens, result.words, result.bytes) == (tokens, words, size)
    nats, metrics = result.table[:, 0].sum(), result.metrics
    assert metrics["loss"] == pytest.approx(nats / tokens)
    for name, count in (("perplexity", tokens), ("word_perplexity", words)):
        assert metrics[name] == pytest.approx(math.exp(nats / count))
    assert metrics["byte_perplexity"] == pytest.approx(2 ** metrics["bits_per_byte"])
    assert metrics["byte_perplexity"] == pytest.approx(math.exp(nats / size))
    for name, (low, high) in result.intervals.items():
        assert low < metrics[name] < high
    # the command says the same of a folder that is no run
    argv = ["evaluate", str(decoder / "hf"), "--data", str(decoder / "texts.jsonl")]
    assert main([*argv, "--stride", "3", "--out", str(decoder / "out.json")]) == 0
    shown = capsys.readouterr().out
    expected = perplexity.perplexity(model, TEXTS, stride=3)
    assert f"loss {expected.metrics['loss']:.4f} [" in shown
    assert "3 documents" in shown
    written = json.loads((decoder / "out.json").read_text())
    assert written["bits_per_byte"] == pytest.approx(expected.metrics["bits_per_byte"], rel=1e-5)
    assert set(written["intervals"]) == set(expected.metrics)
    assert main([*argv, "--stride", "16"]) == 2
    assert "stride=16 is out of range: 1 to 15" in capsys.readouterr().err
    assert main(argv[:2]) == 2
    assert "no validation data: name some with --data" in capsys.readouterr().err


@pytest.mark.slow
def test_intervals_of_classes_are_percentiles_of_resampled_scores(classifier_folder):
    folder = classifier_folder
    # some answers are wrong
    rows = [json.loads(line) for line in (folder / "labelled.jsonl").read_text().splitlines()]
    for row in rows[::7]:
        row["label"] = {"neg": "pos", "pos": "neg"}[row["label"]]
    (folder / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = (str(folder / "wrong.jsonl"),)
    mesh = MeshConfig(data=8)
    run = restore.restore(folder / "run", sources=sources, mesh=mesh, batch_size=16)
    first, again, other = (evaluate(run, samples=200, seed=seed).intervals for seed in (0, 0, 1))
    assert first == again != other
    result = evaluate(run, predict=True)
    right = np.array(
        [p["label"] == x for p, x in zip(result.predictions, run.data.columns["label"])]
    )
    # accuracy is a mean: its resampled values by themselves
    drawn = [right[d].mean() for d in bootstrap.draws(len(right), 200, 0)]
    assert first["accuracy"] == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert set(first) == set(result.metrics) - {"loss"}
    # as a folder in the Hugging Face layout
    theirs = evaluate(
        restore.restore(folder / "hf", sources=sources, mesh=mesh, seq_len=32), samples=200
    )
    assert theirs.intervals == first
    for name, value in result.metrics.items():
        assert theirs.metrics[name] == pytest.approx(value, abs=1e-5)


@pytest.mark.slow
def test_intervals_of_a_loss_come_from_the_sums_of_each_row(tmp_path):
    write_corpus(tmp_path)
    with small_runs():
        pretrain(tiny(tmp_path, steps=2))
        results = [
            evaluate(restore.restore(tmp_path / "run", mesh=MeshConfig(data=n)), samples=100)
            for n in (1, 8)
        ]
        run = restore.restore(tmp_path / "run", mesh=MeshConfig(data=1))
        parts = bootstrap._row_sums(run)
    for result in results:
        low, high = result.intervals["loss"]
        assert low < result.metrics["loss"] < high
        low, high = result.intervals["perplexity"]
        assert low < result.metrics["perplexity"] < high
    assert results[0].intervals["loss"] == pytest.approx(results[1].intervals["loss"], rel=1e-5)
    total, weight = (x.sum() for x in parts["loss"])
    assert total / weight == pytest.approx(results[0].metrics["loss"], rel=1e-5)
    assert len(parts["loss"][0]) == len(run.rows)
    # a run of this task has a causal language model too
    model = restore.find(tmp_path / "run", mesh=one_device()).load("predict")
    assert perplexity.perplexity(model, ["ann met bob."]).tokens == 12


@pytest.mark.slow
def test_a_masked_language_model_is_evaluated_as_a_folder_as_in_its_run(classifier_folder):
    folder, mesh = classifier_folder, MeshConfig(data=8)
    convert(folder / "base", folder / "base_hf")
    sources = (str(folder / "labelled.jsonl"),)
    options = dict(sources=sources, mesh=mesh, batch_size=8, seq_len=32)
    ours, theirs = (
        evaluate(restore.restore(folder / name, **options)) for name in ("base", "base_hf")
    )
    assert ours.step == 30 and theirs.step == 0
    for name, value in ours.metrics.items():
        assert theirs.metrics[name] == pytest.approx(value, rel=1e-4)


def test_what_cannot_be_evaluated_is_said(classifier_folder, capsys):
    run, data = str(classifier_folder / "run"), str(classifier_folder / "new.jsonl")
    text = classifier_folder / "plain.jsonl"
    text.write_text('{"text": "a good film"}\n')
    for argv, message in [
        ([run, "--data", str(text)], "no column 'label': the row has: text; --columns role=name"),
        ([run, "--data", data], "unknown label 'new 0'"),
        (
            [run, "--data", data, "--stride", "4"],
            "task classification has no causal language model",
        ),
        ([run, "--data", data, "--bootstrap", "-1"], "--bootstrap -1: must not be negative"),
        ([run, "--data", data, "--columns", "label=x"], "no column 'x': the row has: text, label"),
    ]:
        assert main(["evaluate", *argv, "--mesh.data", "8"]) == 2
        assert message in capsys.readouterr().err
