"""Every objective from text to loss: correct rows, finite steps, and fine-tuning of the result."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import random_params

from jaxlm.config import (
    CurriculumConfig,
    DataConfig,
    EncoderDecoderConfig,
    FinetuneConfig,
    OptimizerConfig,
    TokenizerConfig,
    files,
)
from jaxlm.data import sources, tokenizer
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.corpora import Corpora, Sources
from jaxlm.data.loader import BatchAt
from jaxlm.models import heads
from jaxlm.run.prepare import with_vocab
from jaxlm.tasks import (
    CausalLMConfig,
    ClassificationConfig,
    DenoisingConfig,
    FillInMiddleConfig,
    HybridLMConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    ReplacedTokenConfig,
    SpanCorruptionConfig,
    UL2Config,
    task_class,
)
from jaxlm.tasks.downstream.classification import Classification
from jaxlm.tasks.pretraining import replaced_token
from jaxlm.tasks.task import Context, loss_sums, metrics
from jaxlm.training import curriculum

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
    counts = RowCounts()
    held = texts(20)
    return Corpora(
        sources.Documents(texts(), [""] * 61, counts), sources.Documents(held, [""] * 21, counts)
    )


@functools.cache
def tok():
    return tokenizer.train(texts(), TokenizerConfig(kind="bpe", vocab_size=120))


def built(config, corpora=None, seq_len=32, **task_changes):
    """The task of a config with a tiny model of its kind, its training rows, and its tokenizer."""
    sizes = dict(dim=16, num_layers=1, num_heads=2, max_len=64)
    if isinstance(config.model, EncoderDecoderConfig):
        sizes["num_decoder_layers"] = 1
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **sizes),
        data=DataConfig(seq_len=seq_len),
        task=dataclasses.replace(config.task, **task_changes),
        batch_size=4,
    )
    kind = task_class(config.task)
    own = tok().with_tokens(kind.added_tokens(config))
    config = dataclasses.replace(config, model=with_vocab(config.model, own))
    plan = curriculum.build(config, kind, own, corpora or corpus())
    return plan.task, plan.train[0], own


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_objective_mixes_sources_of_long_and_of_short_documents(path):
    counts = RowCounts()
    kinds = [[x for x in texts() if (len(x) > 60) is long] for long in (True, False)]
    parts = tuple(sources.Documents(part, [""] * len(part), counts) for part in kinds)
    _, rows, _ = built(load(path.stem), corpora=Corpora(Sources(parts, ("long", "short")), None))
    batch = BatchAt(rows, 32, seed=0)(0)
    assert all(len(x) == 32 for x in batch.values())
    documents = batch["segment_ids"].max(axis=1)
    assert documents.max() > documents.min()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_objective_has_rows_of_each_stages_length(path):
    config = files.load_python(path)
    longest, _, own = built(config)
    config = dataclasses.replace(
        config,
        model=longest.backbone,
        data=DataConfig(seq_len=32),
        curriculum=CurriculumConfig(ends=(5, 8, 9), seq_lens=(16, 32, 16), batch_sizes=(4, 8, 8)),
        optimizer=OptimizerConfig(warmup_steps=0),
        steps=10,
        accumulate=1,
    )
    plan = curriculum.build(config, task_class(config.task), own, corpus())
    assert [rows is plan.train[0] for rows in plan.train] == [True, False, True, False]
    assert plan.train[1] is plan.train[3]
    assert plan.task is plan.tasks[1]
    short, whole = (BatchAt(rows, 4, 0)(0) for rows in plan.train[:2])
    assert (short["tokens"].shape, whole["tokens"].shape) == ((4, 16), (4, 32))
    assert BatchAt(plan.validation, 4, 0)(0)["tokens"].shape == (4, 32)
    assert len(plan.train[0]) > len(plan.train[1])
    # both are of the same text, and of whole rows of it
    assert (short["segment_ids"] > 0).mean() > 0.4
    assert short["weights"].sum() > 0
    assert set(short) == set(whole)


def load(name):
    return files.load_python(next(path for path in CONFIGS if path.stem == name))


@functools.cache
def rows_of(name, count=60):
    """Task, training rows, tokenizer and a batch of many rows of an objective."""
    task, rows, own = built(load(name))
    return task, rows, own, BatchAt(rows, count, 0)(0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_step_of_every_objective_is_finite_and_reaches_every_parameter(path):
    task, rows, _ = built(files.load_python(path))
    batch = BatchAt(rows, 4, 0)(0)
    params = random_params(task.model)
    assert set(params) <= {"backbone", "head"}

    def total(params, batch, key):
        loss = task.loss(params, batch, Context(key, jnp.int32(0)))
        return loss.total, loss_sums(loss)

    gradient = jax.jit(jax.grad(total, has_aux=True))
    # one use each: what XLA would gain by optimising costs more
    options = {"xla_backend_optimization_level": "0"}
    run = gradient.lower(params, batch, jax.random.key(1)).compile(compiler_options=options)
    grads, sums = run(params, batch, jax.random.key(1))
    assert sums["means"]["loss"][1] > 0
    for name, value in metrics(task, jax.device_get(sums)).items():
        assert np.isfinite(value), name
    assert task.cost(32) > 0
    for where, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), where
    unused = [
        jax.tree_util.keystr(where)
        for where, g in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(g)
    ]
    assert not [name for name in unused if "type_embedding" not in name]
    assert "read each" in rows.describe(100)
    row = {k: v[0] for k, v in batch.items()}
    pieces = task.preview(row)
    assert sum(piece.counts for piece in pieces) == (row["weights"] > 0).sum()
    # padding counts as a text of its own, where it is shown
    texts = len(np.unique(row["segment_ids"])) - (
        "decoder_tokens" in row and 0 in row["segment_ids"]
    )
    assert sum(piece.begins for piece in pieces) == texts - 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_fine_tuning_finds_the_pretrained_backbone(path):
    shapes = lambda model: {
        jax.tree_util.keystr(where): x.shape
        for where, x in jax.tree_util.tree_leaves_with_path(
            jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))["backbone"]
        )
    }
    task, _, own = built(files.load_python(path))
    run = FinetuneConfig(task=ClassificationConfig(labels=("a", "b")), model=task.backbone)
    classifier = Classification(run, own).model
    have, need = shapes(task.model), shapes(classifier)
    assert need.items() <= have.items()
    # an encoder-decoder's classifier leaves the decoder alone
    rest = set(have) - set(need)
    assert all("decoder" in name for name in rest)
    tokens = np.ones((2, 8), np.int32)
    inputs = dict.fromkeys(("tokens", "segment_ids"), tokens)
    logits = jax.eval_shape(
        lambda: classifier.apply(
            {"params": heads.init_params(classifier, jax.random.key(0))}, **inputs
        )
    )
    assert logits.shape == (2, 2)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_rows_depend_on_their_keys_and_not_on_the_batch(path):
    _, rows, _ = built(files.load_python(path))
    indices = np.arange(6) % len(rows)
    whole = rows.rows(indices, np.zeros(6, int))
    part = rows.rows(indices[[4, 1]], np.zeros(2, int))
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][[4, 1]])
    if path.stem != "causal_lm":
        again = rows.rows(indices, np.ones(6, int))
        assert any(not np.array_equal(again[name], x) for name, x in whole.items())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_global_batch_is_the_same_for_any_number_of_processes(path):
    dataset = built(files.load_python(path))[1]
    # steps on both sides of the end of an epoch, each asked for as after a restart
    for step in (0, len(dataset) // 8, 123):
        whole = BatchAt(dataset, 8, 5)(step)
        for processes in (2, 4):
            mine = np.split(np.arange(8), processes)
            parts = [BatchAt(dataset, 8, 5, rows)(step) for rows in mine]
            for name, x in whole.items():
                np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), x)


def documents_in(row, own, ids="tokens", segments="segment_ids"):
    """The texts of the segments of a row, without control tokens."""
    found = []
    for number in range(1, row[segments].max() + 1):
        found.append(own.decode(row[ids][row[segments] == number]))
    return found


def test_prefix_lm_shows_a_prefix_and_predicts_the_rest():
    _, _, own, batch = rows_of("prefix_lm")
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


def test_fill_in_the_middle_rows_contain_the_texts_of_the_corpus():
    _, _, own, batch = rows_of("fill_in_middle")
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
    _, _, own, batch = rows_of("hybrid")
    masked = batch["prefix"].any(axis=1)
    assert 0.25 < masked.mean() < 0.75
    assert not (batch["tokens"][~masked] == own.mask_id).any()
    real = batch["segment_ids"] > 0
    np.testing.assert_array_equal(batch["prefix"][masked], real[masked])
    # masked tokens are predicted at the position before them
    for row in np.flatnonzero(masked):
        positions = np.flatnonzero(batch["tokens"][row] == own.mask_id)
        assert (batch["weights"][row][positions - 1] == 1).all()
        assert (batch["targets"][row][positions - 1] != own.mask_id).all()
    causal = ~masked
    same = batch["weights"][causal] > 0
    np.testing.assert_array_equal(
        batch["targets"][causal][same], np.roll(batch["tokens"], -1, axis=1)[causal][same]
    )


@pytest.mark.parametrize("unit", ["token", "word", "ngram", "span"])
def test_masked_rows_and_targets_contain_the_text(unit):
    _, dataset, own = built(load("masked_lm"), unit=unit, mask_fraction=0.3)
    batch = BatchAt(dataset, 30, 0)(0)
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


def sides(batch, own):
    """Input and target ids of every pair in a batch of an encoder-decoder, after checks of the layout."""
    found = []
    for i in range(len(batch["tokens"])):
        row = {k: v[i] for k, v in batch.items()}
        count = row["segment_ids"].max()
        assert row["decoder_segment_ids"].max() == count
        for number in range(1, count + 1):
            here = row["decoder_segment_ids"] == number
            targets, read = row["targets"][here], row["decoder_tokens"][here]
            assert read[0] == own.bos_id
            np.testing.assert_array_equal(read[1:], targets[:-1])
            np.testing.assert_array_equal(row["decoder_positions"][here], np.arange(here.sum()))
            assert (row["weights"][here] == 1).all()
            inputs = row["tokens"][row["segment_ids"] == number]
            assert inputs[-1] == targets[-1] == own.eos_id
            found.append((inputs[:-1].tolist(), targets[:-1].tolist()))
        assert not row["weights"][row["decoder_segment_ids"] == 0].any()
    return found


def joined(inputs, targets, sentinels):
    """The text of a corrupted pair."""
    spans, current = {}, None
    for token in targets:
        if token in sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in inputs for t in spans.get(token, [token])]


@pytest.mark.parametrize("name", ["span_corruption", "ul2"])
def test_inputs_and_targets_of_span_corruption_contain_texts_of_the_corpus(name):
    _, rows, own, batch = rows_of(name)
    everything = " ".join(texts())
    sentinels = {i for piece, i in own.vocab.items() if piece.startswith("<extra_id_")}
    modes = [own.vocab[m] for m in ("[NLU]", "[S2S]", "[NLG]")] if name == "ul2" else []
    seen = set()
    for inputs, targets in sides(batch, own):
        if modes:
            assert inputs[0] in modes
            seen.add(inputs.pop(0))
        assert not set(inputs + targets) & set(modes)
        text = own.decode(joined(inputs, targets, sentinels))
        assert text.strip()
        assert text in everything
    assert seen == set(modes)
    if name == "span_corruption":
        # 31 inputs and their end come from 34 tokens, 5 of them noise in 2 spans
        assert batch["targets"].shape == (60, 5 + 2 + 1)
        shares = rows.packed.efficiency
        assert min(shares) > 0.8
    else:
        np.testing.assert_allclose(rows.counts / len(rows), 1 / 7, atol=0.02)


def test_the_target_of_denoising_is_the_whole_text():
    _, _, own, batch = rows_of("denoising")
    everything, words = " ".join(texts()), 0
    for inputs, targets in sides(batch, own):
        text = own.decode(targets)
        assert text in everything
        kept = [i for i in inputs if i != own.mask_id]
        assert len(kept) == len(targets) - max(1, min(round(0.3 * len(targets)), len(targets) - 1))
        assert not set(kept) - set(targets)
        assert len(inputs) <= len(targets)
        words += len(targets)
    assert words > 500


@pytest.mark.parametrize("kind", ["order", "next"])
def test_pairs_are_cut_at_sentences_and_labelled(kind):
    _, dataset, own = built(load("sentence_pair"), kind=kind)
    batch = BatchAt(dataset, 80, 0)(0)
    rows = batch["tokens"].copy()
    for row, at, targets, weights in zip(rows, *(batch[n] for n in ("at", "targets", "weights"))):
        row[at[weights > 0]] = targets[weights > 0]
    everything = " ".join(texts())
    labels = []
    for i in range(80):
        segments, types = batch["segment_ids"][i], batch["token_types"][i]
        count = segments.max()
        real = batch["pair_weights"][i] > 0
        assert not batch["pair_weights"][i][count:].any()
        for number in range(1, count + 1):
            here = segments == number
            assert batch["pair_at"][i][number - 1] == np.argmax(here)
            ids = rows[i][here]
            assert ids[0] == own.cls_id
            assert ids[-1] == own.sep_id
            if not real[number - 1]:
                assert (types[here] == 0).all()
                continue
            a, b = (own.decode(ids[types[here] == t]) for t in (0, 1))
            assert list(ids).count(own.sep_id) == 2
            label = batch["pair_labels"][i][number - 1]
            labels.append(label)
            # nothing but the sense says where a part is from: the first ends and the second begins with a sentence
            assert a.endswith(".")
            assert b.lstrip()[:3] in [*NAMES, "x"]
            if label:
                assert a + b in everything
            elif kind == "order":
                assert a + b not in everything
                told = [part for side in (a, b) for part in side.split(".")]
                assert all(part in everything for part in told)
            else:
                assert a in everything
                assert b in everything
    assert 0.35 < np.mean(labels) < 0.65
    assert len(labels) > 60


def test_next_sentences_need_two_documents():
    with pytest.raises(ValueError, match="two documents"):
        built(load("sentence_pair"), kind="next", corpora=Corpora(one_document(), None))


def one_document():
    return sources.Documents([" ".join(texts())], [""], RowCounts())


def test_the_detector_reads_what_the_generator_wrote():
    _, dataset, own = built(load("replaced_token"))
    batch = BatchAt(dataset, 4, 0)(0)
    chosen = batch["weights"] > 0
    masked = np.take_along_axis(batch["tokens"], batch["at"], axis=1)[chosen]
    assert (masked == own.mask_id).all()
    values = np.where(chosen, batch["targets"], 0)
    original = np.asarray(replaced_token.fill(batch, jnp.asarray(values)))
    assert not (original == own.mask_id).any()
    everything = " ".join(texts())
    for i in range(4):
        row = {"tokens": original[i], "segment_ids": batch["segment_ids"][i]}
        assert all(text in everything for text in documents_in(row, own))


def test_a_wrong_model_or_tokenizer_is_rejected_in_one_line():
    encoder = load("masked_lm").model
    for name, words in (("prefix_lm", "needs a decoder"), ("hybrid", "needs a decoder")):
        with pytest.raises(ValueError, match=words):
            built(dataclasses.replace(load(name), model=encoder))
    with pytest.raises(ValueError, match="needs an encoder-decoder"):
        built(dataclasses.replace(load("ul2"), model=encoder))
    with pytest.raises(ValueError, match="longer than model"):
        built(load("ul2"), target_len=65)
    with pytest.raises(ValueError, match="needs an encoder"):
        built(dataclasses.replace(load("masked_lm"), model=load("causal_lm").model))
    for name in ("masked_lm", "sentence_pair", "fill_in_middle"):
        with pytest.raises(ValueError, match="no room for text"):
            built(load(name), seq_len=2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FillInMiddleConfig(fraction=1.5), "task.fraction=1.5"),
        (lambda: HybridLMConfig(masked_rows_fraction=-0.1), "task.masked_rows_fraction=-0.1"),
        (lambda: HybridLMConfig(mask_fraction=0.0), "task.mask_fraction=0.0"),
        (lambda: SpanCorruptionConfig(noise_fraction=1.0), "task.noise_fraction=1.0"),
        (lambda: SpanCorruptionConfig(target_len=2), "task.target_len=2"),
        (lambda: UL2Config(regular_fraction=0.5), "not to 1"),
        (lambda: DenoisingConfig(delete_fraction=2.0), "task.delete_fraction=2.0"),
        (lambda: ReplacedTokenConfig(generator_layers=0), "task.generator_layers=0"),
        (
            lambda: MaskedLMConfig(mask_token_fraction=0.8, random_token_fraction=0.3),
            "add up to at most 1",
        ),
    ],
)
def test_settings_out_of_range_are_rejected(make, words):
    assert PrefixLMConfig() != CausalLMConfig()
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.slow
def test_smoothing_spreads_over_the_entries_of_the_tokenizer_only():
    task, rows, own = built(load("causal_lm"), label_smoothing=0.3)
    assert task.backbone.vocab_size > own.vocab_size
    batch = BatchAt(rows, 4, 0)(0)
    params = random_params(task.model)
    context = Context(step=0, key=jax.random.key(0), train=True)

    def loss(params):
        return task.loss(params, batch, context).total

    table = jax.grad(loss)(params)["backbone"]["embed"]["token"]["embedding"]
    # the rows behind only lose probability: their logits are not pulled up by smoothing
    inputs = {name: batch[name] for name in ("segment_ids", "positions")}
    hidden = task.model.apply({"params": params}, batch["tokens"], **inputs, method="hidden")
    logits = hidden @ params["backbone"]["embed"]["token"]["embedding"].T
    expected = np.einsum(
        "BT,BTV,BTD->VD", batch["weights"], jax.nn.softmax(logits), hidden, optimize=True
    )
    behind = slice(own.vocab_size, None)
    np.testing.assert_allclose(table[behind], expected[behind], rtol=1e-3, atol=1e-4)
