"""The VAE on images and on a table: scikit-learn's digits, and its breast-cancer data with few labels.

    python benchmarks/vae_arrays.py --out runs/vae_arrays

Writes OUT/data/*.npz, trains configs/vae_digits.py and configs/vae_tabular.py, and prints -ELBO of the test rows.
Then it compares logistic regressions on 10, 20, 50 and 100 labelled rows of breast_cancer, one on the standardised
columns and one on the means of the latent, whose VAE has seen all training rows without labels. The classifiers of one
seed have the same labelled rows, equally many of each class; all are tested on the same test rows.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tyro
from mean_deviation import mean_deviation
from sklearn import datasets, linear_model, metrics, model_selection

from jaxlm import pretrain
from jaxlm.config import files
from jaxlm.run.evaluate import evaluate
from jaxlm.run.predict import predict
from jaxlm.run.restore import restore

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
LABELS = (10, 20, 50, 100)
SCORES = {
    "accuracy": metrics.accuracy_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
}


def write_data(folder: pathlib.Path) -> None:
    """Writes digits and breast_cancer, four fifths for training and the rest, `*_test.npz`, for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = datasets.load_digits()
    # 8 x 8 pixels from 0 to 16: each becomes 3 x 3, and a border of 2 makes 28 x 28
    images = np.kron(digits.images / 16, np.ones((1, 3, 3)))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).reshape(len(images), -1)
    _write(folder, "digits", images, digits.target)
    table = datasets.load_breast_cancer()
    # 1 is malignant, the class whose precision and recall are wanted
    _write(folder, "breast_cancer", table.data, 1 - table.target, standardise=True)


def _write(
    folder: pathlib.Path, name: str, x: np.ndarray, y: np.ndarray, standardise: bool = False
) -> None:
    x, x_test, y, y_test = model_selection.train_test_split(
        x, y, test_size=0.2, random_state=0, stratify=y
    )
    if standardise:
        mean, std = x.mean(0), x.std(0)
        x, x_test = (x - mean) / std, (x_test - mean) / std
    np.savez(folder / f"{name}.npz", x=x.astype(np.float32), y=y)
    np.savez(folder / f"{name}_test.npz", x=x_test.astype(np.float32), y=y_test)


def train(name: str, data: pathlib.Path, folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Trains a config of configs/ on a data set; returns the run folder."""
    config = files.load_python(CONFIGS / f"{name}.py")
    sources = dataclasses.replace(config.data, train=(str(data),))
    run_dir = folder / f"{name}_{seed}"
    pretrain(dataclasses.replace(config, data=sources, name=name, seed=seed, run_dir=str(run_dir)))
    return run_dir


def measure(run_dirs: list[pathlib.Path], data: pathlib.Path) -> dict[str, list[float]]:
    """The metrics of the test rows, a value of each run."""
    found = [evaluate(restore(run, sources=(str(test_of(data)),))).metrics for run in run_dirs]
    return {name: [run[name] for run in found] for name in found[0]}


def test_of(data: pathlib.Path) -> pathlib.Path:
    """The file of the test rows."""
    return data.with_name(f"{data.stem}_test.npz")


def latents(run_dir: pathlib.Path, data: pathlib.Path) -> np.ndarray:
    """The means of the posteriors of the rows of a file [n, Z]."""
    rows = predict(restore(run_dir, sources=(str(data),), purpose="predict"))
    return np.array([row["mean"] for row in rows])


def few_labels(
    x: np.ndarray, x_test: np.ndarray, y: np.ndarray, y_test: np.ndarray, count: int, seed: int
) -> dict[str, float]:
    """The scores of a logistic regression on `count` rows, half of them of each class."""
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(y == label))[: count // 2] for label in (0, 1)]
    )
    # C is scikit-learn's default for both
    model = linear_model.LogisticRegression(max_iter=10_000).fit(x[chosen], y[chosen])
    predicted = model.predict(x_test)
    return {name: float(score(y_test, predicted)) for name, score in SCORES.items()}


def main(
    out: pathlib.Path = pathlib.Path("runs/vae_arrays"), seeds: int = 20, trainings: int = 3
) -> None:
    """Trains, compares, and prints a table and a line of JSON.

    Args:
        out: folder of data and runs.
        seeds: number of choices of labelled rows.
        trainings: of each VAE, with different seeds; each gets all choices of labelled rows.
    """
    data = out / "data"
    write_data(data)
    digits, table = data / "digits.npz", data / "breast_cancer.npz"
    result: dict[str, Any] = {"few_labels": []}
    runs_of = {}
    for name, source in (("vae_digits", digits), ("vae_tabular", table)):
        runs_of[name] = [train(name, source, out, seed) for seed in range(trainings)]
        result[name] = measure(runs_of[name], source)
        for metric, values in result[name].items():
            print(f"{name} {metric} {mean_deviation(values, '.2f')}")
    train_file, test_file = np.load(table), np.load(test_of(table))
    # by what the classifier reads: training and test rows, of each VAE
    inputs = {
        "columns": [(train_file["x"], test_file["x"])],
        "latent means": [
            (latents(run, table), latents(run, test_of(table))) for run in runs_of["vae_tabular"]
        ],
    }
    print(f"\n| labels | logistic regression on | {' | '.join(SCORES)} |")
    print("|---|---|---|---|---|")
    for count in LABELS:
        for name, pairs in inputs.items():
            runs = [
                few_labels(x, x_test, train_file["y"], test_file["y"], count, seed)
                for x, x_test in pairs
                for seed in range(seeds)
            ]
            row = {s: [run[s] for run in runs] for s in SCORES}
            result["few_labels"].append({"labels": count, "inputs": name, **row})
            cells = " | ".join(mean_deviation([100 * x for x in xs]) for xs in row.values())
            print(f"| {count} | {name} | {cells} |")
    print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(main)
