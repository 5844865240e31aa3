"""Classification scores computed from a confusion matrix, and their rendering as tables.

A confusion matrix is [C true, C predicted]: counts (or weights) of examples. A score of 0/0, such as the precision of
a class that was never predicted, is defined as 0.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

# classes that `render` shows in full
_SHOWN = 20


def accuracy(confusion: np.ndarray) -> float:
    """Fraction of the examples whose class was predicted correctly."""
    return float(ratio(np.trace(confusion), confusion.sum()))


def precision(confusion: np.ndarray) -> np.ndarray:
    """For each class, the fraction of correct predictions among the predictions of it [C]."""
    return ratio(np.diag(confusion), confusion.sum(0))


def recall(confusion: np.ndarray) -> np.ndarray:
    """For each class, the fraction of its examples that were predicted correctly [C]."""
    return ratio(np.diag(confusion), confusion.sum(1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """For each class, the harmonic mean of precision and recall [C]: 2 correct / (predicted + true)."""
    return ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def matthews(confusion: np.ndarray) -> float:
    """The correlation of true and predicted class: 1 if all are correct, about 0 for guesses, also with rare classes.

    Matthews 1975 for two classes; the R_K of Gorodkin 2004, "Comparing two K-category assignments by a K-category
    correlation coefficient", equation 8, for more.
    """
    m = np.asarray(confusion, np.float64)
    total, true, predicted = m.sum(), m.sum(1), m.sum(0)
    covariance = np.trace(m) * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return float(ratio(covariance, np.sqrt(max(spread, 0.0))))


def table(confusion: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """All scores: accuracy, matthews, and precision, recall and f1 as macro, as micro and under classes/<name>.

    Macro scores are means over the classes that occur as true or predicted class; micro scores are those of all
    decisions together, which equal accuracy if every example has one class.
    """
    scores = {"precision": precision(confusion), "recall": recall(confusion), "f1": f1(confusion)}
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    correct = accuracy(confusion)
    support = confusion.sum(1)
    return {
        "accuracy": correct,
        "matthews": matthews(confusion),
        "macro": {k: float(v[occurs].mean()) if occurs.any() else 0.0 for k, v in scores.items()},
        "micro": dict.fromkeys(scores, correct),
        "classes": {
            name: {**{k: float(v[i]) for k, v in scores.items()}, "support": float(support[i])}
            for i, name in enumerate(names)
        },
    }


def summary(confusion: np.ndarray) -> dict[str, float]:
    """The overall scores as metrics: accuracy, macro_precision, macro_recall, macro_f1, matthews."""
    scores = table(confusion, ())
    macro = {f"macro_{name}": value for name, value in scores["macro"].items()}
    return {"accuracy": scores["accuracy"], **macro, "matthews": scores["matthews"]}


def render(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Scores by class and the confusion matrix as plain text; of many classes, all but the most frequent are merged."""
    assert len(names) == len(confusion)
    order = np.argsort(-confusion.sum(1), kind="stable")
    shown = np.sort(order[:_SHOWN])
    matrix, labels = _merged(confusion, names, shown)
    text = io.StringIO()
    width = max(100, 30 + 10 * len(labels))
    # class names must not be parsed as markup
    console = Console(file=text, width=width, color_system=None, markup=False, emoji=False)
    console.print("scores by class", _class_table(confusion, names, shown))
    console.print(
        "confusion: true classes down, predicted ones across", _matrix_table(matrix, labels)
    )
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _merged(
    confusion: np.ndarray, names: Sequence[str], shown: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The confusion matrix with the classes that are not shown merged into a last one."""
    labels = [names[i] for i in shown]
    if len(shown) == len(names):
        return confusion, labels
    groups = np.full(len(names), len(shown))
    groups[shown] = np.arange(len(shown))
    members = np.eye(len(shown) + 1)[groups]
    return members.T @ confusion @ members, [*labels, f"{len(names) - len(shown)} others"]


def _class_table(confusion: np.ndarray, names: Sequence[str], shown: np.ndarray) -> Table:
    scores = table(confusion, names)
    out = Table("class", box=box.SIMPLE_HEAD)
    columns = ("precision", "recall", "f1")
    for name in (*columns, "support"):
        out.add_column(name, justify="right")
    for i in shown:
        row = scores["classes"][names[i]]
        out.add_row(_short(names[i]), *(f"{row[c]:.4f}" for c in columns), f"{row['support']:,.0f}")
    out.add_section()
    macro = [f"{scores['macro'][c]:.4f}" for c in columns]
    out.add_row("mean of classes", *macro, f"{confusion.sum():,.0f}")
    out.add_row("accuracy", "", "", f"{scores['accuracy']:.4f}")
    out.add_row("Matthews", "", "", f"{scores['matthews']:.4f}")
    return out


def _matrix_table(matrix: np.ndarray, labels: list[str]) -> Table:
    """Rows are true classes, columns predicted ones; columns have numbers if their names would be too wide."""
    numbered = sum(len(_short(x)) + 2 for x in labels) > 60
    heads = [str(i + 1) if numbered else _short(x) for i, x in enumerate(labels)]
    out = Table("", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        out.add_column(head, justify="right")
    for i, (label, row) in enumerate(zip(labels, matrix)):
        name = f"{i + 1:>2} {_short(label)}" if numbered else _short(label)
        out.add_row(name, *(f"{x:,.0f}" if x else "·" for x in row))
    return out


def _short(name: str) -> str:
    """The name of a class in at most 24 characters."""
    return name if len(name) <= 24 else name[:23] + "…"


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, and 0 for 0/0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    out = np.zeros_like(denominator)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)
