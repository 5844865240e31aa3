"""Classes from few labels: text VAEs against linear models, LSA, an autoencoder and a masked language model.

    python benchmarks/few_labels.py yelp --source data/yelp_sentences --out runs/few_labels
    python benchmarks/few_labels.py chnsenticorp --source data/chnsenticorp --extra data/fewclue_tnews \\
        --out runs/few_labels

Every system reads the same unlabelled texts. Then a logistic regression on its features gets 10, 100, 500 or 1,000
labels, or two systems train on with these labels; all are tested on the same balanced test set. Runs that are there
already are not trained again, so a command that was interrupted goes on where it stopped; --systems chooses some.
Prints the tables of docs/case_study_vae.md as Markdown and writes OUT/<data>/results.json.
"""

from __future__ import annotations

import functools
import json
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import few_labels_data
import few_labels_runs
import numpy as np
import tyro
from few_labels_data import Data, Labelled
from few_labels_runs import Features
from mean_deviation import mean_deviation
from sklearn import (
    decomposition,
    feature_extraction,
    linear_model,
    metrics,
    model_selection,
    pipeline,
    preprocessing,
)

from jaxlm import TokenizerConfig

System = Literal[
    "tfidf",
    "lsa",
    "autoencoder",
    "collapsed",
    "free_bits",
    "fresh_decoder",
    "masked_lm",
    "semi_supervised",
    "class_vaes",
]
TITLES = {
    "tfidf": "TF-IDF",
    "lsa": "LSA of the unlabelled texts",
    "autoencoder": "autoencoder (weight 0)",
    "collapsed": "VAE, weight 1 from the start",
    "free_bits": "VAE, free bits",
    "fresh_decoder": "VAE, free bits, from the autoencoder's encoder",
    "masked_lm": "masked language model",
    "semi_supervised": "that VAE, trained on with the labels",
    "class_vaes": "a VAE for each class, by their bounds",
}
# what the training of a VAE reports
DIAGNOSTICS = (
    "iw_nll",
    "neg_elbo",
    "kl",
    "mutual_information",
    "swap_loss",
    "active_units",
    "accuracy",
)


def tfidf(analyzer: str) -> feature_extraction.text.TfidfVectorizer:
    """Words and pairs of words, or of characters."""
    options: dict[str, Any] = dict(analyzer=analyzer, ngram_range=(1, 2), sublinear_tf=True)
    if analyzer == "word":
        options["token_pattern"] = r"(?u)\S+"
    return feature_extraction.text.TfidfVectorizer(**options)


def lsa(data: Data, analyzer: str) -> Features:
    """100 components of the TF-IDF of the unlabelled texts (Deerwester et al. 1990)."""
    texts = data.unlabelled.read_text(encoding="utf-8").splitlines()
    vectorizer = tfidf(analyzer).set_params(min_df=3)
    model = pipeline.make_pipeline(vectorizer, decomposition.TruncatedSVD(100, random_state=0))
    model.fit(texts)
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


def on_features(
    system: str,
    data: Data,
    features: Features | None,
    analyzer: str,
    labels: tuple[int, ...],
    seeds: int,
) -> list[dict[str, Any]]:
    """The scores of logistic regressions for each number of labels; without features, on TF-IDF of these texts."""
    # a component of TF-IDF or LSA has its scale for a reason
    known, dense = {}, system not in ("tfidf", "lsa")
    if features is not None:
        x_test = features(data.test.texts)
        known = dict(zip(data.pool.texts, features(data.pool.texts)))
    rows = []
    for count in labels:
        runs = []
        for seed in range(seeds):
            chosen: Labelled = data.pool.draw(count, seed)
            if features is None:
                vectorizer = tfidf(analyzer)
                x = vectorizer.fit_transform(chosen.texts)
                x_test = vectorizer.transform(data.test.texts)
            else:
                x = np.stack([known[text] for text in chosen.texts])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predicted = classify(x, chosen.labels, x_test, dense)
            runs.append(scores(data.test.labels, predicted))
        rows.append({"system": system, "labels": count, "runs": runs})
        print(row_of(rows[-1]), flush=True)
    return rows


def with_labels(
    system: str,
    train: Callable[..., tuple[np.ndarray, np.ndarray]],
    bases: Sequence[Any],
    data: Data,
    labels: tuple[int, ...],
    seeds: int,
) -> list[dict[str, Any]]:
    """The scores of a system that is trained with the labels, for each number of labels, from each run in turn."""
    rows = []
    for count in labels:
        runs = []
        for seed in range(seeds):
            folder = data.unlabelled.parent / f"{system}_{count}_{seed}"
            chosen = data.pool.draw(count, seed)
            base = bases[seed % len(bases)]
            runs.append(scores(*train(base, data, chosen, folder)))
        rows.append({"system": system, "labels": count, "runs": runs})
        print(row_of(rows[-1]), flush=True)
    return rows


def row_of(row: dict[str, Any]) -> str:
    """A row of the table: mean and standard deviation over the choices of labels."""
    cells = []
    for name in ("accuracy", "precision", "recall"):
        cells.append(mean_deviation([100 * run[name] for run in row["runs"]]))
    return f"| {row['labels']:,} | {TITLES[row['system']]} | {' | '.join(cells)} |"


def diagnostics_of(results: dict[str, Any]) -> list[str]:
    """The table of what the trainings of the VAEs report on held-out texts, means over the seeds."""
    lines = [
        f"| training | seeds | {' | '.join(DIAGNOSTICS)} |",
        "|---|---|" + "---|" * len(DIAGNOSTICS),
    ]
    for system, result in results.items():
        found = result["trainings"]
        if found and "kl" in found[0]:
            means = [np.mean([run[name] for run in found]) for name in DIAGNOSTICS]
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            lines.append(f"| {TITLES[system]} | {len(found)} | {cells} |")
    return lines


def main(
    name: Literal["yelp", "chnsenticorp"],
    /,
    source: pathlib.Path,
    extra: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("runs/few_labels"),
    systems: tuple[System, ...] = tuple(TITLES),
    labels: tuple[int, ...] = (10, 100, 500, 1000),
    seeds: int = 10,
    trained_seeds: int = 3,
    trainings: int = 1,
    steps: int = 1000,
    labelled_fraction: float = 0.1,
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
        trained_seeds: the same for systems that are trained with the labels.
        trainings: on unlabelled texts, of each system, with different seeds; each gets all choices of labels, and those
            that are trained with the labels begin with each of them in turn.
        steps: of each training on unlabelled texts.
        labelled_fraction: of the rows of semi-supervised training, in which long texts are few a row.
        vocab_size: entries of the tokenizer.
    """
    folder = out / name
    if name == "yelp":
        data, analyzer = few_labels_data.yelp(source, folder), "word"
    elif extra is None:
        raise SystemExit("--extra: the folder of the unlabelled news is missing")
    else:
        data, analyzer = few_labels_data.chnsenticorp(source, extra, folder), "char"
    tokenizer = TokenizerConfig(kind=analyzer, vocab_size=vocab_size)
    config = lambda system, seed=0: few_labels_runs.config_of(system, data, tokenizer, steps, seed)
    supervised = {
        "semi_supervised": functools.partial(
            few_labels_runs.semi_supervised, labelled_fraction=labelled_fraction
        ),
        "class_vaes": few_labels_runs.class_vaes,
    }
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for system in systems:
        trained: list[dict[str, float]] = []
        if system in supervised:
            bases = [config(few_labels_runs.START, seed) for seed in range(trainings)]
            rows = with_labels(system, supervised[system], bases, data, labels, trained_seeds)
        else:
            is_trained = system not in ("tfidf", "lsa")
            rows = []
            for seed in range(trainings if is_trained else 1):
                features = lsa(data, analyzer) if system == "lsa" else None
                if is_trained:
                    trained.append(few_labels_runs.train(config(system, seed)))
                    run = folder / few_labels_runs.run_name(system, seed)
                    features = few_labels_runs.features_of(system, run)
                more = on_features(system, data, features, analyzer, labels, seeds)
                for row, other in zip(rows, more):
                    row["runs"] += other["runs"]
                rows = rows or more
        results[system] = {"trainings": trained, "rows": rows}
        file.write_text(json.dumps(results, indent=1))
    print("\n| labels | system | accuracy | precision | recall |\n|---|---|---|---|---|")
    for count in labels:
        for result in results.values():
            print(*(row_of(row) for row in result["rows"] if row["labels"] == count), sep="\n")
    print("", *diagnostics_of(results), sep="\n")


if __name__ == "__main__":
    tyro.cli(main)
