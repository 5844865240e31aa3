"""Sentence embeddings: runs from encoders and decoders, their metrics, predictions and exports."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from runs import interrupted_after, losses, small_runs, stored_params

import jaxlm
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    llama_style,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.records import Records, RowCounts
from jaxlm.hf import export, sentence_transformers
from jaxlm.models import heads
from jaxlm.models.embedder import Embedding, embed_rows
from jaxlm.run import bootstrap, prepare
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.predict import predict
from jaxlm.run.restore import restore
from jaxlm.tasks import EmbeddingConfig
from jaxlm.tasks.downstream import pairs, retrieval
from jaxlm.tasks.downstream.embedding import EmbeddingTask

# whole runs: too long for a quick pass
pytestmark = pytest.mark.slow

TOPICS = ("tea", "rain", "war", "love", "birds", "trains", "ships", "bread", "snow", "music")
FORMS = [
    ("what is {0}?", "{0} is a thing"),
    ("tell me about {0}", "we speak of {0}"),
    ("who likes {0}?", "ann likes {0} a lot"),
    ("where is {0}?", "there is {0} here"),
]
# with weights large enough that the texts differ from the start
SIZES = dict(dim=16, num_layers=1, num_heads=2, mlp_dim=32, max_len=32, dropout=0.0, init_std=0.4)


def rows():
    out = []
    for i, topic in enumerate(TOPICS):
        for j, (text, pair) in enumerate(FORMS):
            other = TOPICS[(i + 1) % len(TOPICS)]
            out.append(
                {
                    "text": text.format(topic),
                    "pair": pair.format(topic),
                    "wrong": pair.format(other),
                    "intent": topic,
                    "score": (i * 7 + j * 3) % 5,
                }
            )
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """pairs.jsonl, and untrained models: a BERT in the layout of sentence-transformers, and a Llama."""
    root = tmp_path_factory.mktemp("embedding")
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    texts = [row[name] for row in rows() for name in ("text", "pair")] * 3
    for name, kind in (("bert", "wordpiece"), ("llama", "byte_bpe")):
        tokenizer = tokenizers.train(texts, TokenizerConfig(kind=kind, vocab_size=300))
        sizes = SIZES | dict(vocab_size=tokenizer.vocab_size)
        config = (
            EncoderConfig(**sizes) if name == "bert" else DecoderConfig(**sizes, **llama_style())
        )
        model = heads.Headless(config)
        embedding = None
        if name == "bert":
            prompts = {"query": "what ", "document": ""}
            embedding = Embedding("first", normalize=False, max_len=12, prompts=prompts)
        params = jax.jit(lambda model=model: heads.init_params(model, jax.random.key(1)))()
        export.save(root / name, model, params, tokenizer=tokenizer, embedding=embedding)
    with small_runs():
        yield root


def config_of(folder, name, task=None, init="bert", **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / init),
        task=task or EmbeddingConfig(),
        data=DataConfig(
            train=(str(folder / "pairs.jsonl"),),
            validation=(str(folder / "pairs.jsonl"),),
            pair_column="pair",
            seq_len=12,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        evaluation=EvaluationConfig(every=6),
        checkpoint=CheckpointConfig(every=4, keep=4),
        mesh=MeshConfig(data=2),
        steps=12,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def trained(folder):
    """With hard negatives, from the BERT; its pooling and prompts are taken over."""
    task = EmbeddingConfig(negative_column="wrong", sizes=(4,))
    return finetune(config_of(folder, "trained", task))


@pytest.mark.slow
def test_a_run_learns_to_retrieve_and_takes_over_what_its_model_does(folder, trained):
    before, after = losses(folder / "trained")[1][0], losses(folder / "trained")[12][0]
    assert after < 0.8 * before
    evaluation = trained["evaluation"]
    assert 1 / 40 < evaluation["mrr"] <= 1
    assert set(evaluation) >= {"loss", "accuracy_at_1", "accuracy_at_10", "mrr", "mrr_4"}
    assert trained["best"]["mrr"] >= evaluation["mrr"]
    task = json.loads((folder / "trained/config.json").read_text())["task"]
    assert (task["pooling"], task["normalize"], task["text_prompt"]) == ("first", False, "what ")


@pytest.mark.slow
def test_metrics_are_those_of_brute_force_over_all_pairs_for_every_batch_size(folder, trained):
    run = restore(folder / "trained", mesh=MeshConfig(data=1))
    answers = predict(run)
    unit = lambda key: (
        np.array([a[key] for a in answers])
        / np.linalg.norm([a[key] for a in answers], axis=1, keepdims=True)
    )
    texts, seconds, wrong = unit("vector"), unit("pair_vector"), unit("negative_vector")
    data = rows()
    candidates = {row["pair"]: seconds[i] for i, row in enumerate(data)}
    candidates |= {row["wrong"]: wrong[i] for i, row in enumerate(data)}
    ranks = []
    for i, row in enumerate(data):
        cosines = {text: float(vector @ texts[i]) for text, vector in candidates.items()}
        right = cosines.pop(row["pair"])
        # two candidates may be as near as float32 tells
        ranks.append(
            [1 + sum(other >= right + x for other in cosines.values()) for x in (-1e-6, 1e-6)]
        )
    ranks = np.array(ranks)
    want = {"accuracy_at_1": (ranks == 1).mean(0), "mrr": (1 / ranks).mean(0)}
    assert np.abs(want["mrr"][1] - want["mrr"][0]) < 0.05
    for size in (4, 16):
        other = restore(folder / "trained", mesh=MeshConfig(data=1), batch_size=size)
        got = evaluate(other).metrics
        for name, (least, most) in want.items():
            for value in (got[name], trained["evaluation"][name]):
                assert least - 1e-9 <= value <= most + 1e-9, (name, size)
    for answer, row in zip(answers, data):
        assert len(answer["vector"]) == 16
        i = data.index(row)
        assert answer["similarity"] == pytest.approx(texts[i] @ seconds[i], abs=1e-5)


def test_texts_alone_are_embedded_as_by_the_run_and_by_its_export(folder, trained, tmp_path):
    path = tmp_path / "new.jsonl"
    texts = ["is tea?", "a long text " + "about rain and snow " * 9]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = restore(
        folder / "trained", sources=(str(path),), purpose="predict", mesh=MeshConfig(data=1)
    )
    vectors = np.array([answer["vector"] for answer in predict(run)])
    assert "pair_vector" not in predict(run)[0]
    line = convert(folder / "trained", tmp_path / "out", step="best")
    assert "BertModel of step" in line
    for model in (jaxlm.load(folder / "trained"), jaxlm.load(tmp_path / "out")):
        if "out" in model.name and trained["best"]["step"] != 12:
            continue
        np.testing.assert_allclose(model.embed(texts, prompt="query"), vectors, atol=1e-5)
        # not normalised, as the model it began with
        assert abs(np.linalg.norm(vectors[0]) - 1) > 0.1
        assert np.abs(model.embed(texts[0]) - vectors[0]).max() > 1e-3
    card = (tmp_path / "out/README.md").read_text()
    assert "sentence-similarity" in card
    assert "SentenceTransformer(FOLDER)" in card
    modules = json.loads((tmp_path / "out/modules.json").read_text())
    assert [m["path"] for m in modules] == ["", "1_Pooling"]
    read = sentence_transformers.read(tmp_path / "out")
    assert read == Embedding("first", False, 12, {"query": "what ", "document": ""})
    assert read.prompts == {"query": "what ", "document": ""}
    with pytest.raises(ValueError, match="no prompt 'qery'; the model's are: 'query', 'document'"):
        model.embed("a", prompt="qery")


@pytest.mark.slow
def test_a_stopped_run_equals_an_uninterrupted_one(folder, trained):
    task = EmbeddingConfig(negative_column="wrong", sizes=(4,))
    config = config_of(folder, "stopped", task)
    with interrupted_after(6):
        finetune(config)
    finetune(config)
    assert losses(folder / "stopped") == losses(folder / "trained")
    expected = stored_params(folder / "trained")
    for path, value in stored_params(folder / "stopped").items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.slow
def test_the_global_batch_is_the_same_on_one_device_and_on_eight(folder, trained):
    task = EmbeddingConfig(negative_column="wrong", sizes=(4,))
    for devices in (1, 8):
        config = config_of(folder, f"on_{devices}", task, mesh=MeshConfig(data=devices))
        finetune(dataclasses.replace(config, evaluation=EvaluationConfig(every=12)))
        got, want = losses(folder / f"on_{devices}"), losses(folder / "trained")
        np.testing.assert_allclose([got[s] for s in want], [want[s] for s in want], rtol=1e-3)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(folder):
    model = heads.Embedder(EncoderConfig(**SIZES, vocab_size=40), "mean")
    params = jax.jit(lambda: heads.init_params(model, jax.random.key(0)))()
    tokens = np.random.default_rng(0).integers(4, 40, (6, 2, 5))
    segments = np.ones_like(tokens)
    weights = np.random.default_rng(1).normal(size=(6, 2, 16))

    def loss(params, parts):
        vectors = embed_rows(model, params, tokens, segments, parts=parts)
        return (vectors * weights).sum(), vectors

    grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    (want, whole), (got, split) = grad(params, 1), grad(params, 3)
    np.testing.assert_allclose(split, whole, atol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), got, want)


def test_scored_pairs_and_a_decoder(folder, tmp_path):
    task = EmbeddingConfig(objective="cosent", sizes=(8,), parts=2)
    summary = finetune(config_of(folder, "scored", task, init="llama", mesh=MeshConfig(data=1)))
    run = restore(folder / "scored", mesh=MeshConfig(data=1))
    answers = predict(run)
    from scipy import stats

    true = [row["score"] for row in rows()]
    want = stats.spearmanr([a["similarity"] for a in answers], true).statistic
    # six digits may make ties
    assert summary["evaluation"]["spearman"] == pytest.approx(want, abs=1e-3)
    assert summary["best"].keys() == {"step", "spearman"}
    assert "spearman_8" in summary["evaluation"]
    # the vector of the last token, which is the end token that the export adds too
    convert(folder / "scored", tmp_path / "out")
    model, exported = jaxlm.load(folder / "scored"), jaxlm.load(tmp_path / "out")
    assert model.embedding.pooling == exported.embedding.pooling == "last"
    assert model.frame("tea") == exported.frame("tea")
    assert model.frame("tea")[-1] == model.tokenizer.sep_id
    texts = [row["text"] for row in rows()[:3]]
    vectors = np.array([a["vector"] for a in answers[:3]])
    for each in (model, exported):
        np.testing.assert_allclose(each.embed(texts), vectors, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="is an encoder"):
        exported.generate("a")


def test_pairs_of_a_class_belong_together(folder):
    task = EmbeddingConfig(group_column="intent")
    _, data = prepare.read_data(config_of(folder, "groups", task), EmbeddingTask)
    numbers = pairs.identities(data.train)
    assert numbers[:5, -1].tolist() == [0, 0, 0, 0, 1]
    place = {text: i for i, text in enumerate(numbers[:, 1].tolist())}
    right, ignored = pairs._right(numbers, place)
    # any of the four second texts of the topic is right
    assert right[:5] == [{0, 1, 2, 3}] * 4 + [{4, 5, 6, 7}]
    assert ignored == [None] * 40
    # a query that is a candidate itself finds others of its class, not itself
    numbers[1, 0] = numbers[2, 1]
    right, ignored = pairs._right(numbers, place)
    assert (right[1], ignored[1]) == ({0, 1, 3}, 2)


def test_intervals_are_of_queries_among_all_candidates():
    """Resampled candidates would be fewer, and the interval above the metric itself."""
    rng = np.random.default_rng(0)
    names = [f"text {i}" for i in range(80)]
    records = Records(
        {"text": names[:40], "pair": names[40:]}, list(map(str, range(40))), RowCounts()
    )
    vectors = rng.normal(size=(40, 6))
    found = [
        {"vector": v.tolist(), "pair_vector": (v + rng.normal(size=6)).tolist()} for v in vectors
    ]
    every = np.arange(40)
    draws = [every, *bootstrap.draws(40, 400, 0)]
    got = pairs.resample(found, records, draws, (3,))
    metrics = pairs.score(found, records, (3,))
    assert metrics.keys() == got.keys()
    assert {name: x[0] for name, x in got.items()} == metrics
    for name, (low, high) in bootstrap.percentiles(got).items():
        assert low < metrics[name] < high, name
        assert np.mean(got[name]) == pytest.approx(metrics[name], abs=0.02)


def test_a_tie_is_not_found():
    same = np.ones((3, 4), np.float32)
    ranks = retrieval.ranks(same, same, [{0}, {1}, {2}], [None, None, 0])
    assert ranks.tolist() == [3, 3, 2]
    assert retrieval.retrieval(ranks)["accuracy_at_1"] == 0


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            dict(objective="cosine", max_score=4.0),
            {"score": 9},
            "score out of range: 9, expected -4 to 4",
        ),
        (dict(objective="cosent"), {"score": "x"}, "column 'score' is not a number"),
        (dict(negative_column="wrong"), {"wrong": "same"}, "the negative is the second text"),
        (dict(negative_column="worng"), {}, "no column 'worng'"),
        (dict(sizes=(16,)), {}, "must be less than the width 16"),
        (dict(parts=3), {}, "task.parts=3 does not divide batch_size=8"),
        (dict(), {"pair": ""}, "pairs.jsonl:4"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(folder, tmp_path, task, row, message):
    path = tmp_path / "pairs.jsonl"
    data = rows()[:8]
    data[3] |= {"pair": "same"} | row
    path.write_text("".join(json.dumps(x) + "\n" for x in data))
    config = config_of(folder, "bad", EmbeddingConfig(**task))
    source = dataclasses.replace(config.data, train=(str(path),), validation=(str(path),))
    config = dataclasses.replace(config, data=source, run_dir=str(tmp_path / "run"))
    if row.get("pair") == "":
        # empty texts are always skipped
        _, data = prepare.read_data(config, EmbeddingTask)
        assert "empty" in str(data.train.counts)
        return
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as e:
        finetune(config)
    assert "\n" not in str(e.value)
    if row:
        assert "pairs.jsonl:4" in str(e.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmbeddingConfig(temperature=0.0), "task.temperature=0.0 must be positive"),
        (lambda: EmbeddingConfig(sizes=(4, 4)), "must be different positive numbers"),
        (
            lambda: EmbeddingConfig(objective="cosent", group_column="x"),
            "task.group_column has no effect",
        ),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_faults_of_a_start(folder):
    config = config_of(folder, "bad")
    data = dataclasses.replace(config.data, pair_column=None)
    with pytest.raises(ValueError, match=r"set data\.pair_column"):
        finetune(dataclasses.replace(config, data=data))
    data = dataclasses.replace(config.data, seq_len=20)
    with pytest.raises(ValueError, match=r"data\.seq_len=20 is more than the 12 tokens to which"):
        finetune(dataclasses.replace(config, data=data))
    with pytest.raises(ValueError, match="accumulate=2: the loss of task embedding"):
        finetune(dataclasses.replace(config, accumulate=2))
    with pytest.raises(ValueError, match="compares the pairs of a batch: at least 2"):
        finetune(dataclasses.replace(config, batch_size=1, mesh=MeshConfig(data=1)))


LAYOUT = {
    "modules.json": [
        {"type": "sentence_transformers.base.modules.transformer.Transformer", "path": ""},
        {
            "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "path": "1_Pooling",
        },
    ],
    "1_Pooling/config.json": {"embedding_dimension": 16, "pooling_mode": "lasttoken"},
    "sentence_bert_config.json": {"max_seq_length": 9},
    "config_sentence_transformers.json": {"prompts": {"q": "q: "}, "default_prompt_name": "q"},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Embedding("last", False, 9, {"q": "q: "}, "q")),
        ({"modules.json": None}, None),
        ({"sentence_bert_config.json": None}, Embedding("last", False, None, {"q": "q: "}, "q")),
        ({"modules.json": "x"}, r"modules\.json: not a JSON file"),
        (
            {"modules.json": [*LAYOUT["modules.json"], {"type": "a.Dense", "path": "2_Dense"}]},
            "module Dense: only a Transformer",
        ),
        ({"1_Pooling/config.json": {"pooling_mode": "max"}}, "pooling max is not supported"),
        (
            {
                "1_Pooling/config.json": {
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                }
            },
            "pooling cls, mean is not supported",
        ),
        (
            {"1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False}},
            "include_prompt=false is not supported",
        ),
        ({"sentence_bert_config.json": {"do_lower_case": True}}, "do_lower_case=true"),
        ({"sentence_bert_config.json": {"max_seq_length": -1}}, "max_seq_length -1"),
        (
            {"config_sentence_transformers.json": {"default_prompt_name": "z"}},
            "default_prompt_name 'z' is not in prompts",
        ),
        (
            {
                "modules.json": [
                    {"type": "Transformer", "path": "0_Transformer"},
                    LAYOUT["modules.json"][1],
                ]
            },
            "the transformer is in 0_Transformer",
        ),
    ],
)
def test_the_layout_of_sentence_transformers_is_read_or_refused_by_name(
    tmp_path, changes, expected
):
    for name, value in (LAYOUT | changes).items():
        if value is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(value if value == "x" else json.dumps(value))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected) as e:
            sentence_transformers.read(tmp_path)
        assert str(tmp_path) in str(e.value)
        return
    read = sentence_transformers.read(tmp_path)
    assert read == expected
    if read is not None:
        assert read.text("a") == "q: a"
