"""Detects questions of no known class by the probability of the best one: AUROC, and recall at a threshold.

    python benchmarks/out_of_scope.py runs/clinc --known OUT/clinc_val.jsonl OUT/clinc_test.jsonl \
        --unknown OUT/clinc_oos_val.jsonl OUT/clinc_oos_test.jsonl

OUT is what `benchmarks/task_data.py` wrote. A question is out of scope if the largest probability is below a threshold
(Larson et al. 2019, 1909.02027, section 3.3). The threshold is the one with the most right answers (the class of
questions that have one, "out of scope" for the others) on the first files; the figures are those of the second files.
The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import tyro

from jaxlm.run import predict, restore
from jaxlm.tasks.downstream.correlation import ranks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the measurement."""

    # folder of a classifier's run
    run: tyro.conf.Positional[str]
    # labelled questions: to choose the threshold on, and to measure on
    known: tuple[str, str]
    # questions of none of the classes: likewise
    unknown: tuple[str, str]


def answers(run: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Largest probability of each question, and whether its class is the true one."""
    found = predict.predict(restore.restore(run, sources=(source,), purpose="predict"))
    labels = [json.loads(line)["label"] for line in pathlib.Path(source).read_text().splitlines()]
    return (
        np.array([row["probability"] for row in found]),
        np.array([row["label"] == label for row, label in zip(found, labels, strict=True)]),
    )


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that a question in scope has a larger value than one out of scope, ties half (Mann-Whitney)."""
    order = ranks(np.concatenate([inside, outside]))[: len(inside)]
    return float((order.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))


def best_threshold(inside: np.ndarray, right: np.ndarray, outside: np.ndarray) -> float:
    """The threshold with the most right answers: "out of scope" is said below it."""
    candidates = np.unique(np.concatenate([inside, outside, [0.0]]))
    hits = [(right & (inside >= t)).sum() + (outside < t).sum() for t in candidates]
    return float(candidates[int(np.argmax(hits))])


def main(options: Options) -> None:
    """Prints the figures of the second files."""
    (chosen_in, chosen_right), (inside, right) = (answers(options.run, s) for s in options.known)
    chosen_out, outside = (answers(options.run, source)[0] for source in options.unknown)
    threshold = best_threshold(chosen_in, chosen_right, chosen_out)
    result = {
        "accuracy_in_scope_without_threshold": float(right.mean()),
        "auroc": auroc(inside, outside),
        "threshold": threshold,
        "accuracy_in_scope": float((right & (inside >= threshold)).mean()),
        "recall_out_of_scope": float((outside < threshold).mean()),
        "precision_out_of_scope": float(
            (outside < threshold).sum()
            / max(1, (outside < threshold).sum() + (inside < threshold).sum())
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options))
