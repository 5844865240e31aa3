"""Answers from a text: windows, targets, the best span, and rows that cannot be used."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as library

from jaxlm import sharding
from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FinetuneConfig,
    MeshConfig,
    TokenizerConfig,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.records import Records
from jaxlm.models import heads
from jaxlm.ops import spans
from jaxlm.run import override, prepare
from jaxlm.tasks import AnsweringConfig, ClassificationConfig
from jaxlm.tasks.downstream import answer_spans, context_windows
from jaxlm.tasks.downstream.answering import Answering
from jaxlm.tasks.downstream.classification import Classification
from jaxlm.training.step import evaluation_context

CONTEXT = "Ann Lee met Bob in Paris, France. She left on day 12, and Bob stayed until day 30 or so."
LENGTHS = {"wordpiece": 24, "byte_bpe": 24, "unigram": 40}
KINDS = tuple(LENGTHS)


@pytest.fixture(scope="module")
def known():
    texts = [CONTEXT, "who met whom where", "北京 東京 é"]
    return {k: tokenizers.train(texts, TokenizerConfig(kind=k, vocab_size=320)) for k in KINDS}


def answers(*texts, context=CONTEXT):
    return {"text": list(texts), "answer_start": [context.index(x) for x in texts]}


def records(*rows):
    names = ("context", "question", "answers", "question_id")
    columns = {n: [dict(zip(names, row)).get(n) for row in rows] for n in names}
    return Records(columns, [f"f:{i + 1}" for i in range(len(rows))], RowCounts())


def build(data, tokenizer, **options):
    defaults = dict(
        seq_len=24,
        stride=None,
        on_bad_row="error",
        is_training=True,
        with_targets=True,
        no_answer_is_last=False,
    )
    return context_windows.build(data, tokenizer, **{**defaults, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_the_tokens_of_the_answer_in_every_window_that_has_it(known, kind):
    # the third begins where a token ends
    wanted = ["Paris, France", "day 12", ", France", "Ann"]
    data = records(*((CONTEXT, "who", answers(x)) for x in wanted), (CONTEXT, "who", answers()))
    rows = build(data, known[kind], seq_len=LENGTHS[kind])
    batch = rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))
    hits = [0] * 5
    for i, record in enumerate(rows.arrays["record"]):
        first, last = batch["targets"][i]
        start, end = batch["characters"][i, first, 0], batch["characters"][i, last, 1]
        if (first, last) == (0, 0):
            # the window does not have the whole answer
            seen = batch["characters"][i]
            seen = seen[seen[:, 1] > seen[:, 0]]
            if record < 4:
                begin = CONTEXT.index(wanted[record])
                assert not (
                    seen[:, 0].min() <= begin and seen[:, 1].max() >= begin + len(wanted[record])
                )
        else:
            assert CONTEXT[start:end] == wanted[record]
            hits[record] += 1
    assert min(hits[:4]) >= 1
    assert hits[4] == 0
    # every token of the context is in a window
    tokens = len(known[kind].encode(CONTEXT))
    room = LENGTHS[kind] - 3 - len(known[kind].encode("who"))
    starts = rows.arrays["start"][rows.arrays["record"] == 0]
    assert set(range(tokens)) <= {s + k for s in starts for k in range(room)}
    assert "from 5 questions" in rows.describe(10)


def test_answers_that_no_window_has_as_a_whole_are_counted(known):
    data = records((CONTEXT, "who", answers(CONTEXT[:40])), (CONTEXT, "who", answers("Ann")))
    assert "1 answers are in no window as a whole" in build(data, known["unigram"]).describe(1)
    assert "window" not in build(data, known["unigram"], with_targets=False).describe(1)


@pytest.mark.parametrize(
    ("tokens", "room", "stride", "want"),
    [
        (5, 5, 2, [0]),
        (0, 5, 2, [0]),
        (6, 5, 2, [0, 2]),
        (9, 5, 2, [0, 2, 4]),
        (10, 5, 5, [0, 5]),
        (11, 5, 5, [0, 5, 10]),
    ],
)
def test_windows_end_with_the_first_that_has_the_end(tokens, room, stride, want):
    assert context_windows.window_starts(tokens, room, stride) == want


def test_the_best_span_is_that_of_a_search_through_all():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 20, 9)).astype(np.float32)
    allowed = rng.random((20, 9)) < 0.6
    allowed[0] = False
    for longest in (1, 3, 50):
        best = spans.best_span(jnp.array(start), jnp.array(end), jnp.array(allowed), longest)
        assert best.score[0] < spans.EXCLUDED / 2
        for row in range(1, 20):
            every = [
                (start[row, i] + end[row, j], i, j)
                for i, j in itertools.product(range(9), repeat=2)
                if i <= j < i + longest and allowed[row, i] and allowed[row, j]
            ]
            want = max(every)
            assert (int(best.first[row]), int(best.last[row])) == want[1:]
            assert float(best.score[row]) == pytest.approx(want[0])


def test_roberta_has_two_tokens_between_question_and_context():
    vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}
    backend = library.Tokenizer(library.models.WordLevel(vocab, "<unk>"))
    backend.pre_tokenizer = library.pre_tokenizers.Whitespace()
    plain = context_windows.around(tokenizers.Tokenizer(backend))
    assert plain == ((0,), (2,), (2,))
    backend.post_processor = library.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    frame = context_windows.around(tokenizers.Tokenizer(backend))
    assert frame == ((0,), (2, 2), (2,))
    rows = build(
        records(("a b", "b", answers("a", context="a b"))),
        tokenizers.Tokenizer(backend),
        seq_len=12,
    )
    batch = rows.rows(np.array([0]), np.array([0]))
    assert batch["tokens"][0, :8].tolist() == [0, 5, 2, 2, 4, 5, 2, 1]
    assert batch["targets"][0].tolist() == [4, 4]


def test_a_question_that_is_too_long_is_named_left_out_or_shortened(known):
    long = "who " * 30
    data = records((CONTEXT, "who", answers("Ann")), (CONTEXT, long, answers("Ann")))
    with pytest.raises(ValueError, match=r"f:2: question too long: \d+ tokens, at most 15 fit"):
        build(data, known["wordpiece"])
    rows = build(data, known["wordpiece"], on_bad_row="skip")
    assert set(rows.arrays["record"]) == {0}
    assert "1 questions are too long and left out" in rows.describe(1)
    rows = build(data, known["wordpiece"], on_bad_row="skip", is_training=False)
    assert set(rows.arrays["record"]) == {0, 1}
    assert "1 questions are too long and shortened" in rows.describe(1)
    with pytest.raises(ValueError, match=r"f:1: task.stride=21 is more than the \d+ tokens"):
        build(data, known["wordpiece"], stride=21)


def task_of(tokenizer, kind=EncoderConfig, **settings):
    config = FinetuneConfig(
        task=AnsweringConfig(**{"language": "english", "unanswerable": True, **settings}),
        data=DataConfig(seq_len=24),
        model=kind(vocab_size=tokenizer.vocab_size, dim=8, num_layers=1, num_heads=2, max_len=32),
    )
    return Answering(config, tokenizer)


def window(score, none, characters=(0, 3)):
    return {"score": score, "none": none, "probability": 0.25, "characters": np.array(characters)}


def test_the_answer_is_the_best_of_all_windows_or_none(known):
    record = {"context": CONTEXT, "question": "who", "question_id": "q"}
    outputs = [window(1.0, 5.0), window(4.0, 3.5, (12, 15)), window(2.0, 6.0, (19, 24))]
    found = task_of(known["wordpiece"]).read(outputs, record)
    assert found == {
        "question_id": "q", "answer": "Bob", "start": 12, "end": 15, "score": 4.0,
        "probability": 0.25, "no_answer_score": -0.5, "candidate": "Bob",
    }  # fmt: skip
    found = task_of(known["wordpiece"], null_threshold=-1.0).read(outputs, record)
    assert (found["answer"], found["start"], found["candidate"]) == ("", None, "Bob")
    found = task_of(known["wordpiece"], unanswerable=False, null_threshold=-1.0).read(
        outputs, record
    )
    assert found["answer"] == "Bob"
    assert "no_answer_score" not in found
    found = task_of(known["wordpiece"]).read([window(-2e30, 0.0, (0, 0))], record)
    assert (found["answer"], found["probability"]) == ("", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [EncoderConfig, DecoderConfig])
def test_prediction_and_loss_are_those_of_the_logits(known, kind):
    task = task_of(known["wordpiece"], kind, max_answer_tokens=3)
    data = records((CONTEXT, "who", answers("Bob")), (CONTEXT, "met whom", answers()))
    rows = task.rows(data, "validation")
    count = len(rows)
    batch = rows.rows(np.arange(count), np.zeros(count, int)) | {
        "valid": np.ones(count, np.float32)
    }
    params = task.init(jax.random.key(0))
    none_at = batch["segment_ids"].sum(1) - 1 if kind is DecoderConfig else np.zeros(count, int)
    assert batch["no_answer"].tolist() == none_at.tolist()
    inputs = {n: batch[n] for n in ("tokens", "segment_ids")}
    if kind is EncoderConfig:
        inputs["token_types"] = batch["token_types"]
    logits = np.asarray(task.model.apply({"params": params}, **inputs), np.float64)
    out = task.predict(params, batch, jax.random.key(0))
    total = 0.0
    for i in range(count):
        real = batch["characters"][i, :, 1] > batch["characters"][i, :, 0]
        allowed = np.flatnonzero(real)
        pairs = [(a, b) for a in allowed for b in allowed if a <= b < a + 3]
        a, b = max(pairs, key=lambda p: logits[i, p[0], 0] + logits[i, p[1], 1])
        assert float(out["score"][i]) == pytest.approx(logits[i, a, 0] + logits[i, b, 1], rel=1e-4)
        want = batch["characters"][i, a, 0], batch["characters"][i, b, 1]
        assert tuple(np.asarray(out["characters"][i])) == want
        assert float(out["none"][i]) == pytest.approx(logits[i, none_at[i]].sum(), rel=1e-4)
        some = np.append(allowed, none_at[i])
        p = np.exp(logits[i, some]) / np.exp(logits[i, some]).sum(0)
        at = [list(some).index(x) for x in (a, b)]
        assert float(out["probability"][i]) == pytest.approx(p[at[0], 0] * p[at[1], 1], rel=1e-4)
        goal = [list(some).index(x) for x in batch["targets"][i]]
        total -= (np.log(p[goal[0], 0]) + np.log(p[goal[1], 1])) / 2
    loss = task.loss(params, batch, evaluation_context(jnp.int32(0), None, None, 0))
    assert float(loss.total) == pytest.approx(total, rel=1e-4)
    assert float(loss.weight) == count


def load(path, **data):
    config = FinetuneConfig(
        task=AnsweringConfig(), data=DataConfig(train=(str(path),), validation_fraction=0.0, **data)
    )
    return prepare.read_data(config, Answering)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": {"text": ["Bob"], "answer_start": [11]}}, "'Bob' at character 11 .* it is at character 12"),
        ({"answers": {"text": ["Eve"], "answer_start": [3]}}, "'Eve' at character 3 .* it is nowhere in the context"),
        ({"answers": {"text": ["Bob"], "answer_start": []}}, "1 texts and 0 answer_starts"),
        ({"answers": {"text": [""], "answer_start": [0]}}, "an unanswerable question has empty lists"),
        ({"answers": "Bob"}, "'answers' is not"),
        ({"answers": None}, "null in column 'answers'"),
        ({"question": 3}, "'question' is not a string"),
        ({"context": None}, "null in column 'context'"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_used_is_named_or_counted(tmp_path, row, message):
    good = {"context": CONTEXT, "question": "who?", "answers": answers("Bob")}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **row}) + "\n")
    with pytest.raises(ValueError, match=rf"train.jsonl:2: .*{message}"):
        load(path)
    _, data = load(path, on_bad_row="skip")
    assert len(data.train) == 1
    assert "1 skipped" in data.train.describe()


def test_settings_follow_from_the_data(tmp_path):
    path = tmp_path / "train.json"
    qas = [{"id": "1", "question": "who?", "answers": [{"text": "Bob", "answer_start": 12}]}]
    paragraph = {"context": CONTEXT, "qas": qas}
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    config, data = load(path)
    assert (config.task.unanswerable, config.task.language) == (False, "english")
    assert data.train.columns["question_id"] == ["1"]
    qas.append({"id": "2", "question": "why?", "answers": [], "is_impossible": True})
    paragraph["context"] = CONTEXT[:15] + "他在北京的大学学习中文以及历史和地理"
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    config, _ = load(path)
    assert (config.task.unanswerable, config.task.language) == (True, "chinese")


def test_how_answers_are_chosen_is_kept_in_the_exported_config():
    settings = AnsweringConfig(unanswerable=True, max_answer_tokens=60, null_threshold=-1.5)
    model = heads.SpanQA(EncoderConfig(dim=8, num_layers=1, num_heads=2, vocab_size=9))
    about = json.loads(json.dumps(answer_spans.exported(settings)))
    assert Answering.of_model(model, about) == settings
    # a folder from elsewhere does not say
    found = Answering.of_model(
        model, {"task_specific_params": {"question-answering": {"top_k": 1}}}
    )
    assert found == AnsweringConfig() and found.unanswerable is None


def test_whether_a_question_may_have_no_answer_is_said_by_the_caller():
    config = FinetuneConfig(task=AnsweringConfig(), data=DataConfig(train=("x",)), batch_size=8)
    mesh = sharding.make_mesh(MeshConfig())
    given = dict(batch_size=None, seq_len=None, columns={}, on_bad_row=None, mesh=mesh)
    changed = override.override(Answering, config, **given, settings={"unanswerable": True})
    assert changed.task.unanswerable is True
    other = dataclasses.replace(config, task=ClassificationConfig())
    with pytest.raises(
        ValueError, match=r"classification has no setting 'unanswerable'.* has none"
    ):
        override.override(Classification, other, **given, settings={"unanswerable": True})
    with pytest.raises(ValueError, match=r"task.null_threshold: 'x' is not of type float"):
        override.override(Answering, config, **given, settings={"null_threshold": "x"})
    with pytest.raises(
        ValueError, match=r"no setting 'stride'.*; it has unanswerable, null_threshold"
    ):
        override.override(Answering, config, **given, settings={"stride": 3})
