"""Classes from few labels: text VAEs against linear models, LSA, an autoencoder and a masked language model.

    python benchmarks/few_labels.py yelp --source data/yelp_sentences --out runs/few_labels

Every system reads the same unlabelled texts; then a logistic regression on its features gets 10, 100, 500 or 1,000
labels, and all are tested on the same balanced test set. Runs that are there already are not trained again, so a
command that was interrupted goes on where it stopped; --systems chooses some. Prints the tables of
docs/case_study_vae.md as Markdown and writes OUT/<data>/results.json.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, Literal

import few_labels_data
import jax
import numpy as np
import tyro
from few_labels_data import Data, Labelled
from sklearn import (
    decomposition,
    feature_extraction,
    linear_model,
    metrics,
    model_selection,
    pipeline,
    preprocessing,
)

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluationConfig,
    MaskedLMConfig,
    OptimizerConfig,
    TextVAEConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
    pretrain,
)
from jaxlm.models.encoder import Encoder
from jaxlm.run import latents, restore
from jaxlm.tasks.downstream.classification import text_arrays

SEQ_LEN = 128
SIZES = dict(
    dim=128,
    num_layers=2,
    num_heads=4,
    max_len=SEQ_LEN,
    norm="rms_norm",
    norm_place="pre",
    extra_norms=("final", "qk"),
    positions="rotary",
    biases=(),
    dropout=0.1,
    attention_dropout=0.0,
)
# the objectives of the text VAEs; the weight of the divergence is constant and 1 where nothing is said
OBJECTIVES = {
    "autoencoder": TextVAEConfig(kl_weight=0.0, kl_schedule="constant"),
    "collapsed": TextVAEConfig(kl_schedule="constant"),
    "free_bits": TextVAEConfig(kl_steps=200, free_bits=0.2),
    "fresh_decoder": TextVAEConfig(kl_steps=200, free_bits=0.2),
}
# starts from the encoder of this run, with a new decoder (Li et al. 2019, 1909.00868)
INIT_ENCODER = {"fresh_decoder": "autoencoder"}
System = Literal[
    "tfidf", "lsa", "autoencoder", "collapsed", "free_bits", "fresh_decoder", "masked_lm"
]
TITLES = {
    "tfidf": "TF-IDF",
    "lsa": "LSA of the unlabelled texts",
    "autoencoder": "autoencoder (weight 0)",
    "collapsed": "VAE, weight 1 from the start",
    "free_bits": "VAE, free bits",
    "fresh_decoder": "VAE, free bits, from the autoencoder's encoder",
    "masked_lm": "masked language model",
}


def config_of(system: str, data: Data, tokenizer: TokenizerConfig, steps: int) -> TrainConfig:
    """The run of a system on the unlabelled texts."""
    encoder = EncoderConfig(**SIZES, num_token_types=0)
    model: Any = encoder
    task: Any = MaskedLMConfig()
    if system in OBJECTIVES:
        model = VAEConfig(encoder=encoder, decoder=DecoderConfig(**SIZES), latent_dim=32)
        task = OBJECTIVES[system]
    init = None
    if system in INIT_ENCODER:
        init = str(data.unlabelled.parent / INIT_ENCODER[system])
        # that of the run
        tokenizer = TokenizerConfig()
    return TrainConfig(
        model=model,
        task=task,
        init_encoder=init,
        data=DataConfig(
            train=(str(data.unlabelled),),
            validation=(str(data.held_out),),
            text_unit="line",
            seq_len=SEQ_LEN,
            tokenizer=tokenizer,
        ),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=2e-3,
            schedule="linear",
            warmup_steps=40,
            final_fraction=0.0,
            weight_decay=0.0,
        ),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=500),
        steps=steps,
        batch_size=16,
        log_every=50,
        name=system,
    )


def train(config: TrainConfig, folder: pathlib.Path) -> dict[str, float]:
    """Trains the run unless it is complete; returns its last evaluation."""
    if not (folder / "summary.json").is_file():
        pretrain(dataclasses.replace(config, run_dir=str(folder)))
    return json.loads((folder / "summary.json").read_text())["evaluation"]


# ---- features


def latent_means(folder: pathlib.Path) -> Callable[[list[str]], np.ndarray]:
    """Posterior means of a text VAE."""
    model = latents.load(folder)
    return lambda texts: model.encode(texts).means


def mean_hidden(folder: pathlib.Path) -> Callable[[list[str]], np.ndarray]:
    """Last hidden states of an encoder, averaged over the tokens of a text."""
    run = restore.restore_model(folder)
    encoder = Encoder(run.config.model, run.config.compute)

    @jax.jit
    def encode(params, tokens, segment_ids):
        x = encoder.apply({"params": params}, tokens, segment_ids=segment_ids)
        weights = segment_ids / segment_ids.sum(1, keepdims=True)
        return jax.numpy.einsum("BTD,BT->BD", x, weights)

    def features(texts: list[str], size: int = 64) -> np.ndarray:
        ids = run.task.tokenizer.encode_batch(texts)
        arrays = text_arrays(ids, None, run.task.tokenizer, SEQ_LEN)
        out = []
        for first in range(0, len(texts), size):
            rows = np.minimum(np.arange(first, first + size), len(texts) - 1)
            batch = arrays["tokens"][rows], arrays["segment_ids"][rows]
            out.append(np.asarray(encode(run.params["backbone"], *batch)))
        return np.concatenate(out)[: len(texts)]

    return features


def tfidf(analyzer: str) -> feature_extraction.text.TfidfVectorizer:
    """Words and pairs of words, or of characters."""
    pattern = r"(?u)\S+"
    return feature_extraction.text.TfidfVectorizer(
        analyzer=analyzer, ngram_range=(1, 2), token_pattern=pattern, sublinear_tf=True
    )


def lsa(data: Data, analyzer: str) -> Callable[[list[str]], np.ndarray]:
    """100 components of the TF-IDF of the unlabelled texts (Deerwester et al. 1990)."""
    texts = data.unlabelled.read_text(encoding="utf-8").splitlines()
    vectorizer = tfidf(analyzer).set_params(min_df=3)
    model = pipeline.make_pipeline(vectorizer, decomposition.TruncatedSVD(100, random_state=0))
    model.fit(texts[:60_000])
    return model.transform


# ---- classifiers


def classify(x: Any, y: np.ndarray, x_test: Any, standardise: bool = True) -> np.ndarray:
    """The classes of the test rows, by a logistic regression whose C is chosen by cross-validation over `x` alone."""
    model = linear_model.LogisticRegressionCV(
        Cs=[0.01, 0.1, 1, 10, 100],
        cv=model_selection.StratifiedKFold(5, shuffle=True, random_state=0),
        scoring="accuracy",
        max_iter=1000,
    )
    if not standardise:
        return model.fit(x, y).predict(x_test)
    scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    return scaled.fit(x, y).predict(x_test)


def scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision and recall averaged over the classes."""
    options = dict(average="macro", zero_division=0.0)
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "precision": float(metrics.precision_score(truth, predicted, **options)),
        "recall": float(metrics.recall_score(truth, predicted, **options)),
    }


def evaluate(
    system: str, data: Data, features: Any, labels: tuple[int, ...], seeds: int, analyzer: str
) -> list[dict[str, Any]]:
    """The scores of a system for each number of labels."""
    # each component of TF-IDF and LSA has its scale for a reason
    known, dense = None, system not in ("tfidf", "lsa")
    if features is not None:
        x_test = features(data.test.texts)
        known = dict(zip(data.pool.texts, features(data.pool.texts)))
    rows = []
    for count in labels:
        runs = []
        for seed in range(seeds):
            chosen: Labelled = data.pool.draw(count, seed)
            if known is None:
                vectorizer = tfidf(analyzer)
                x, x_test = (
                    vectorizer.fit_transform(chosen.texts),
                    vectorizer.transform(data.test.texts),
                )
            else:
                x = np.stack([known[text] for text in chosen.texts])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs.append(scores(data.test.labels, classify(x, chosen.labels, x_test, dense)))
        rows.append({"system": system, "labels": count, "runs": runs})
        print(row_of(rows[-1]), flush=True)
    return rows


def row_of(row: dict[str, Any]) -> str:
    """A row of the table: mean and standard deviation over the choices of labels."""
    cells = []
    for name in ("accuracy", "precision", "recall"):
        values = 100 * np.array([run[name] for run in row["runs"]])
        cells.append(f"{values.mean():.1f} ± {values.std(ddof=1):.1f}")
    return f"| {row['labels']:,} | {TITLES[row['system']]} | {' | '.join(cells)} |"


def main(
    name: Literal["yelp", "chnsenticorp"],
    /,
    source: pathlib.Path,
    extra: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("runs/few_labels"),
    systems: tuple[System, ...] = tuple(TITLES),
    labels: tuple[int, ...] = (10, 100, 500, 1000),
    seeds: int = 10,
    steps: int = 1000,
    vocab_size: int = 5000,
) -> None:
    """Trains what is missing, compares, and prints the tables.

    Args:
        name: the data set.
        source: its folder.
        extra: for chnsenticorp: folder of the unlabelled news.
        out: folder of texts and runs.
        systems: which to compare.
        labels: numbers of labels.
        seeds: choices of labelled texts for each number.
        steps: of each training.
        vocab_size: entries of the tokenizer.
    """
    folder = out / name
    if name == "yelp":
        data, analyzer = few_labels_data.yelp(source, folder), "word"
    else:
        assert extra is not None, "--extra is missing"
        data = few_labels_data.chnsenticorp(source, extra, folder)
        analyzer = "char"
    tokenizer = TokenizerConfig(kind=analyzer, vocab_size=vocab_size)
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for system in systems:
        if system == "tfidf":
            features, trained = None, {}
        elif system == "lsa":
            features, trained = lsa(data, analyzer), {}
        else:
            run = folder / system
            trained = train(config_of(system, data, tokenizer, steps), run)
            features = (latent_means if system in OBJECTIVES else mean_hidden)(run)
        rows = evaluate(system, data, features, labels, seeds, analyzer)
        results[system] = {"training": trained, "rows": rows}
        file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
