"""Text to text: rows, losses, predictions and scores; a run from nothing, and the same model loaded and exported."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import (
    DataConfig,
    EncoderDecoderConfig,
    FinetuneConfig,
    TokenizerConfig,
    t5_style,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.frames import pair_edges
from jaxlm.data.loader import BatchAt
from jaxlm.data.records import Records
from jaxlm.generation import decode
from jaxlm.tasks.downstream import text_scores
from jaxlm.tasks.downstream.text_to_text import TextToText, TextToTextConfig
from jaxlm.tasks.task import Context

MODEL = EncoderDecoderConfig(
    dim=32,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    max_len=32,
    norm_place="pre",
    extra_norms=("final",),
    positions="sinusoidal_inclusive",
    position_offset=2,
    dropout=0.0,
)
LETTERS = "abcdef"


def reversed_pairs(count, seed=0):
    """Words of one letter, and the same words from the last to the first."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words = rng.choice(list(LETTERS), rng.integers(4, 8))
        yield " ".join(words), " ".join(words[::-1])


def records(pairs):
    sources, targets = zip(*pairs)
    ids = [f"pairs.tsv:{i}" for i in range(len(sources))]
    return Records({"source": list(sources), "target": list(targets)}, ids, RowCounts())


def task_of(model=MODEL, seq_len=32, tokenizer=None, **settings):
    tokenizer = tokenizer or own_tokenizer()
    config = FinetuneConfig(
        init="none",
        model=dataclasses.replace(model, vocab_size=-(-tokenizer.vocab_size // 64) * 64),
        task=TextToTextConfig(**{"score": "translation", "target_language": "en"} | settings),
        data=DataConfig(train=("x",), seq_len=seq_len),
    )
    return TextToText(config, tokenizer)


@functools.cache
def own_tokenizer(kind="char"):
    texts = [text for pair in reversed_pairs(50) for text in pair]
    return tokenizers.train(texts, TokenizerConfig(kind=kind, vocab_size=300))


def context(train=False):
    return Context(jax.random.key(0), jnp.int32(0), train=train)


# ---- rows


def batch_of(rows, count=None):
    batch = rows.rows(np.arange(count or len(rows)), np.zeros(count or len(rows), int))
    return {**batch, "valid": np.ones(len(batch["tokens"]), np.float32)}


def test_pairs_are_framed_as_our_pretraining_frames_them():
    task, t = task_of(pack=False), own_tokenizer()
    row = BatchAt(task.rows(records([("a b", "b a")]), "train"), 1, 0)(0)
    assert row["tokens"][0, :4].tolist() == [*t.encode("a b"), t.eos_id]
    assert row["targets"][0, :4].tolist() == [*t.encode("b a"), t.eos_id]
    assert row["decoder_tokens"][0, :4].tolist() == [t.bos_id, *t.encode("b a")]
    assert row["weights"].sum() == 4


def test_the_prefix_is_part_of_the_source():
    task, t = task_of(prefix="abc "), own_tokenizer()
    row = BatchAt(task.rows(records([("a b", "b a")]), "train"), 1, 0)(0)
    assert row["tokens"][0, :8].tolist() == [*t.encode("abc a b"), t.eos_id]


@pytest.mark.parametrize("style", ["sinusoidal", "relative"])
def test_packed_pairs_have_the_losses_of_pairs_in_rows_of_their_own(style):
    model = MODEL
    if style == "relative":
        sizes = {n: getattr(MODEL, n) for n in ("dim", "num_layers", "num_heads", "max_len")}
        model = EncoderDecoderConfig(**t5_style(), **sizes, dropout=0.0)
    data = records(list(reversed_pairs(11)))
    packed, alone = (task_of(model, pack=pack) for pack in (True, False))
    params = jax.jit(packed.init)(jax.random.key(1))
    sums = {}
    for name, task in (("packed", packed), ("alone", alone)):
        rows = task.rows(data, "train")
        loss = jax.jit(lambda *args, task=task: task.loss(*args)[:3])
        sums[name] = (len(rows), loss(params, batch_of(rows), context(train=True)))
    assert sums["packed"][0] < 8
    assert sums["alone"][0] == 11
    several = batch_of(packed.rows(data, "train"))
    assert several["segment_ids"].max() == several["decoder_segment_ids"].max() > 1
    (_, a), (_, b) = sums.values()
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
    assert float(a[1]) == float(b[1])
    assert float(a[2]["accuracy"][0]) == float(b[2]["accuracy"][0])


def test_long_texts_are_cut_counted_and_end_in_eos():
    task = task_of(seq_len=16, target_len=8)
    pairs = [("a b c", "a b"), ("a b", "a b c d e f"), ("b " * 12, "a")]
    rows = task.rows(records(pairs), "train")
    assert "33 % of the sources cut to 16 tokens; 33 % of the targets cut to 8 tokens" in (
        rows.describe(3)
    )
    batch = batch_of(rows)
    eos = task.tokenizer.eos_id
    for names in (("tokens", "segment_ids"), ("targets", "decoder_segment_ids")):
        tokens, segments = (batch[name] for name in names)
        ends = (segments > 0) & (np.roll(segments, -1, 1) != segments)
        ends[:, -1] = segments[:, -1] > 0
        assert (tokens[ends] == eos).all()
        assert (tokens == eos).sum() == 3


def test_rows_are_never_longer_than_what_the_model_reads():
    model = dataclasses.replace(MODEL, max_len=20)
    pairs = records([("a b c d e f a b c d", "a b c d e f a b c d")])
    rows = task_of(model, seq_len=20).rows(pairs, "validation")
    batch = batch_of(rows)
    assert batch["tokens"].shape == batch["targets"].shape == (1, 20)


@pytest.mark.slow
def test_smoothing_leaves_out_what_only_rounds_up_the_vocabulary_and_is_off_in_evaluation():
    data = records(list(reversed_pairs(3)))
    smooth, plain = task_of(label_smoothing=0.3), task_of(label_smoothing=0.0)
    params = jax.jit(smooth.init)(jax.random.key(1))
    batch = batch_of(smooth.rows(data, "train"))
    evaluated = smooth.loss(params, batch, context())
    np.testing.assert_allclose(evaluated.total, plain.loss(params, batch, context()).total)
    inputs = {k: v for k, v in batch.items() if k not in ("targets", "weights", "valid")}
    logits = jax.jit(smooth.model.apply)({"params": params}, **inputs)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    size = smooth.tokenizer.vocab_size
    assert size < log_probs.shape[-1]
    expected = -0.7 * np.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
    expected -= 0.3 * log_probs[..., :size].mean(-1)
    smoothed = smooth.loss(params, batch, context(train=True)).total
    np.testing.assert_allclose(smoothed, (expected * batch["weights"]).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_penalty": -1.0}, "task.length_penalty=-1.0 must not be negative"),
        ({"num_beams": 0}, "task.num_beams=0 must be at least 1"),
        (
            {"length_penalty": 30.0},
            r"length_penalty=30.0 is out of range: this power of \d+ tokens",
        ),
        ({"target_column": "source"}, "are both 'source'"),
        ({"max_new_tokens": 32}, "task.max_new_tokens=32 is more than the 31"),
        ({"target_len": 40}, "longer than model.max_len=32"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        task_of(**settings)


# ---- framing of families


def test_framing_follows_the_tokenizer():
    own = own_tokenizer()
    assert pair_edges(own) == (((), (own.eos_id,)), ((), (own.eos_id,)))
    bert = own_tokenizer("wordpiece")
    cls, sep = bert.cls_id, bert.sep_id
    # the decoder starts with [CLS] already
    assert pair_edges(bert) == (((cls,), (sep,)), ((), (sep,)))


def test_a_tokenizer_that_names_languages_is_refused():
    from tokenizers import Tokenizer as Backend
    from tokenizers import processors

    own = own_tokenizer().with_tokens(["de_DE"])
    backend = Backend.from_str(own.backend.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="de_DE $A <eos>",
        special_tokens=[("de_DE", own.vocab["de_DE"]), ("<eos>", own.eos_id)],
    )
    with pytest.raises(ValueError, match="adds 'de_DE' to texts"):
        pair_edges(tokenizers.Tokenizer(backend))


# ---- predictions


def test_greedy_predictions_are_those_of_sampling_without_temperature():
    task = task_of(num_beams=1, max_new_tokens=9)
    params = jax.jit(task.init)(jax.random.key(3))
    batch = batch_of(task.rows(records(list(reversed_pairs(4))), "validation"))
    found = jax.jit(task.predict)(params, batch, jax.random.key(0))
    eos = task.tokenizer.eos_id
    options = dict(max_new_tokens=9, temperature=0.0, eos_id=eos)
    options |= dict(vocab_size=task.tokenizer.vocab_size)
    generate = jax.jit(functools.partial(decode.generate, task.model, **options))
    prompts, ones = np.full((4, 1), task.tokenizer.start_id), np.ones(4, int)
    expected = generate(
        params,
        prompts,
        ones,
        jax.random.key(0),
        source=batch["tokens"],
        source_lengths=(batch["segment_ids"] > 0).sum(-1),
    )
    np.testing.assert_array_equal(found["tokens"], expected)
    # the score is the mean log-probability of the tokens, by the forward pass
    decoder_tokens = np.roll(expected, 1, 1)
    decoder_tokens[:, 0] = task.tokenizer.start_id
    logits = jax.jit(task.model.apply)(
        {"params": params}, batch["tokens"], decoder_tokens, segment_ids=batch["segment_ids"]
    )[..., : task.tokenizer.vocab_size]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), expected[..., None], -1)[..., 0]
    counts = (np.cumsum(expected == eos, 1) - (expected == eos)) == 0
    means = (chosen * counts).sum(1) / counts.sum(1)
    np.testing.assert_allclose(found["score"], means, rtol=1e-4)


# ---- scores


def test_scores_are_those_of_the_packages():
    sacrebleu = pytest.importorskip("sacrebleu")
    predictions, references = (
        ["the cat sat on a mat .", "a dog"],
        ["the cat sat on the mat .", "a dog"],
    )
    scores = text_scores.score("translation", "en", predictions, references)
    assert scores["bleu"] == sacrebleu.corpus_bleu(predictions, [references], force=True).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(predictions, [references]).score
    assert "tok:13a" in text_scores.signatures("translation", "en")["bleu"]


def test_chinese_is_cut_into_characters():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    same, other = ["今天天气很好我们去公园"], ["今天天气不好我们去学校"]
    assert text_scores.score("translation", "zh", same, same)["bleu"] == pytest.approx(100)
    assert 0 < text_scores.score("translation", "zh", other, same)["bleu"] < 100
    assert "tok:zh" in text_scores.signatures("translation", "zh")["bleu"]
    rouge = text_scores.score("summary", "zh", other, same)
    # 8 of 11 characters are the same
    assert rouge["rouge1"] == pytest.approx(100 * 8 / 11)


def test_rouge_of_english_is_that_of_the_package_with_its_stemmer():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    prediction, reference = "Cats were running. It rained.", "A cat runs. It was raining!"
    expected = scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    lines = [text.replace(". ", ".\n") for text in (reference, prediction)]
    found = text_scores.score("summary", "en", [prediction], [reference])
    for name, value in expected.score(*lines).items():
        assert found[name] == pytest.approx(100 * value.fmeasure), name
    assert found["rougeLsum"] != found["rougeL"] or found["rouge1"] > 0


def test_answers_are_compared_as_squad_does_and_chinese_ones_as_cmrc_does():
    score = functools.partial(text_scores.score, "answer")
    found = score("en", ["The Eiffel Tower", "in Paris, France"], ["eiffel tower!", "Paris"])
    assert found == {"exact_match": 50, "f1": 75}
    assert score("zh", ["北京大学。"], ["北京大学"])["exact_match"] == 100
    # the longest common run is 4 of 11 characters
    other = score("zh", ["今天天气不好我们去学校"], ["今天天气很好我们去公园"])
    assert other["f1"] == pytest.approx(100 * 4 / 11)
    assert "SQuAD" in text_scores.signatures("answer", "en")["f1"]


@pytest.mark.parametrize(
    ("pairs", "kind", "language"),
    [
        ([("Ein schöner Tag im Park", "A fine day in the park")], "translation", "en"),
        ([("A fine day in the park", "Ein schöner Tag im Grünen")], "translation", "und"),
        ([("How are you today?", "你今天好吗？我们去公园吧")], "translation", "zh"),
        ([("long text of many words " * 9, "a summary of six plain words")], "summary", "en"),
        ([("Where is the tower? It is in Paris.", "Paris")], "answer", "en"),
        ([("Good morning everyone here", "おはようございます、みなさん")], "translation", "ja"),
    ],
)
def test_kind_and_language_follow_from_the_texts(pairs, kind, language):
    settings = TextToText.resolve(TextToTextConfig(), records(pairs))
    assert (settings.score, settings.target_language) == (kind, language)
    chosen = TextToTextConfig(score="summary", target_language="ko")
    assert TextToText.resolve(chosen, records(pairs)) == chosen


def test_a_missing_package_is_named_before_the_training(monkeypatch):
    monkeypatch.setattr(text_scores.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package sacrebleu: pip install 'sacrebleu'"):
        task_of().rows(records([("a", "b")]), "validation")
    only = lambda name: None if name == "MeCab" else 1
    monkeypatch.setattr(text_scores.importlib.util, "find_spec", only)
    with pytest.raises(ValueError, match=r"of texts in ja needs the package sacrebleu"):
        text_scores.check("translation", "ja")
    task_of().rows(records([("a", "b")]), "predict")
