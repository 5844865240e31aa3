"""Every objective from text to a loss: its rows hold what it says, its step is finite, and fine-tuning takes it on."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
from styles import random_params

from jaxlm.config import (
    CausalLMConfig,
    DataConfig,
    FillInMiddleConfig,
    HybridLMConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    TokenizerConfig,
    files,
)
from jaxlm.data import sources, tokenizer
from jaxlm.data.loader import BatchAt
from jaxlm.tasks import TASKS, Corpora
from jaxlm.training.pretrain import with_vocab

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs/objectives").glob("*.py"))
NAMES = ["ann", "bob", "cat", "dan", "eve"]


def texts(count=60):
    """Documents of up to ten sentences, one of them empty, one of a single character."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        a, b = rng.choice(NAMES, 2)
        made.append(" ".join(f"{a} met {b} on day {d}." for d in rng.integers(0, 30, 1 + i % 10)))
    return [*made, "x"]


@functools.cache
def corpus():
    counts = sources.RowCounts()
    held = texts(20)
    return Corpora(
        sources.Documents(texts(), [""] * 61, counts), sources.Documents(held, [""] * 21, counts)
    )


@functools.cache
def tok():
    return tokenizer.train(texts(), TokenizerConfig(kind="bpe", vocab_size=120))


def built(config, **task_changes):
    """The task of a config with a tiny model of its kind, and its tokenizer."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dim=16, num_layers=1, num_heads=2, max_len=64),
        data=DataConfig(seq_len=32),
        task=dataclasses.replace(config.task, **task_changes),
        batch_size=4,
    )
    module = TASKS[type(config.task)]
    own = tok().with_tokens(module.added_tokens(config))
    model = with_vocab(config.model, own)
    return module.build(config, model, own, corpus()), own


def load(name):
    return files.load_python(next(path for path in CONFIGS if path.stem == name))


@functools.cache
def rows_of(name, count=60):
    """Task, tokenizer and many rows of an objective."""
    task, own = built(load(name))
    return task, own, BatchAt(task.train, count, 0)(0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_step_of_every_objective_is_finite_and_reaches_every_parameter(path):
    task, _ = built(files.load_python(path))
    batch = BatchAt(task.train, 4, 0)(0)
    params = random_params(task.model)
    assert set(params) <= {"backbone", "head"}
    gradient = jax.jit(jax.grad(task.loss, has_aux=True))
    # one use each: what XLA would gain by optimising costs more
    options = {"xla_backend_optimization_level": "0"}
    run = gradient.lower(params, batch, jax.random.key(1)).compile(compiler_options=options)
    grads, sums = run(params, batch, jax.random.key(1))
    assert sums["weight"] > 0
    for name, value in task.summarize({k: np.asarray(v) for k, v in sums.items()}).items():
        assert np.isfinite(value), name
    for where, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), where
    unused = [
        jax.tree_util.keystr(where)
        for where, g in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(g)
    ]
    assert not [name for name in unused if "type_embedding" not in name]
    assert len(task.train.describe()) > 10
    row = {k: v[0] for k, v in batch.items()}
    pieces = task.preview(row)
    assert sum(counts for _, counts, _ in pieces) == (row["weights"] > 0).sum()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_rows_are_keyed_and_of_any_batch(path):
    task, _ = built(files.load_python(path))
    size = len(task.train)
    indices = np.arange(6) % size
    whole = task.train.rows(indices, np.zeros(6, int))
    part = task.train.rows(indices[[4, 1]], np.zeros(2, int))
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][[4, 1]])
    if path.stem != "causal_lm":
        again = task.train.rows(indices, np.ones(6, int))
        assert any(not np.array_equal(again[name], x) for name, x in whole.items())


def documents_in(row, own, ids="tokens", segments="segment_ids"):
    """The texts that the segments of a row hold, control tokens left out."""
    found = []
    for number in range(1, row[segments].max() + 1):
        found.append(own.decode(row[ids][row[segments] == number]))
    return found


def test_prefix_lm_shows_a_prefix_and_asks_for_the_rest():
    _, own, batch = rows_of("prefix_lm")
    for i in range(len(batch["tokens"])):
        row = {k: v[i] for k, v in batch.items()}
        for number in range(1, row["segment_ids"].max() + 1):
            here = np.flatnonzero(row["segment_ids"] == number)
            given = row["prefix"][here]
            # a run at the beginning, the bos in it
            assert given[0]
            assert (np.diff(given.astype(int)) <= 0).all()
            want = np.append(~given[1:], False)
            np.testing.assert_array_equal(row["weights"][here] > 0, want)
            assert row["tokens"][here[-1]] == own.eos_id
            np.testing.assert_array_equal(row["targets"][here[:-1]], row["tokens"][here[1:]])
        assert not row["prefix"][row["segment_ids"] == 0].any()
    assert 0.3 < batch["prefix"].sum() / (batch["segment_ids"] > 0).sum() < 0.7


def test_filled_in_texts_are_those_of_the_corpus():
    _, own, batch = rows_of("fill_in_middle")
    marks = own.ids_of(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    everything, changed = " ".join(texts()), 0
    for i in range(len(batch["tokens"])):
        for number in range(1, batch["segment_ids"][i].max() + 1):
            ids = batch["tokens"][i][batch["segment_ids"][i] == number]
            if marks[0] in ids:
                changed += 1
                before, after, middle = (
                    own.decode(p) for p in np.split(ids, np.flatnonzero(np.isin(ids, marks[1:])))
                )
                spm = not before.strip()
                text = middle + after if spm else before + middle + after
            else:
                text = own.decode(ids)
            assert text.strip() in everything
    assert changed > 15


def test_hybrid_rows_are_masked_or_causal():
    _, own, batch = rows_of("hybrid")
    masked = batch["prefix"].any(axis=1)
    assert 0.25 < masked.mean() < 0.75
    assert not (batch["tokens"][~masked] == own.mask_id).any()
    real = batch["segment_ids"] > 0
    np.testing.assert_array_equal(batch["prefix"][masked], real[masked])
    # what is masked is predicted one place before
    for row in np.flatnonzero(masked):
        places = np.flatnonzero(batch["tokens"][row] == own.mask_id)
        assert (batch["weights"][row][places - 1] == 1).all()
        assert (batch["targets"][row][places - 1] != own.mask_id).all()
    causal = ~masked
    same = batch["weights"][causal] > 0
    np.testing.assert_array_equal(
        batch["targets"][causal][same], np.roll(batch["tokens"], -1, axis=1)[causal][same]
    )


@pytest.mark.parametrize("unit", ["token", "word", "ngram", "span"])
def test_masked_rows_restore_the_text(unit):
    task, own = built(load("masked_lm"), unit=unit, rate=0.3)
    batch = BatchAt(task.train, 30, 0)(0)
    rows = batch["tokens"].copy()
    for row, at, targets, weights in zip(rows, *(batch[n] for n in ("at", "targets", "weights"))):
        row[at[weights > 0]] = targets[weights > 0]
    everything = " ".join(texts())
    for ids, segments in zip(rows, batch["segment_ids"]):
        assert not np.isin(ids[segments == 0], [own.mask_id]).any()
        row = {"tokens": ids, "segment_ids": segments}
        assert all(text in everything for text in documents_in(row, own))
    share = batch["weights"].sum() / (rows >= 5).sum()
    assert 0.25 < share < 0.36


def test_a_wrong_model_or_tokenizer_is_told_in_one_line():
    encoder = load("masked_lm").model
    for name, words in (("prefix_lm", "needs a decoder"), ("hybrid", "needs a decoder")):
        with pytest.raises(ValueError, match=words):
            built(dataclasses.replace(load(name), model=encoder))
    with pytest.raises(ValueError, match="needs an encoder"):
        built(dataclasses.replace(load("masked_lm"), model=load("causal_lm").model))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FillInMiddleConfig(rate=1.5), "task.rate=1.5"),
        (lambda: HybridLMConfig(masked_share=-0.1), "task.masked_share=-0.1"),
        (lambda: HybridLMConfig(rate=0.0), "task.rate=0.0"),
        (lambda: MaskedLMConfig(mask_share=0.8, random_share=0.3), "add up to at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    assert PrefixLMConfig() != CausalLMConfig()
    with pytest.raises(ValueError, match=words):
        make()
