"""Precision, recall and F1 of decisions that are counted by name: of several labels of a text, or of spans by type.

A name has three counts: of its correct predictions, of all its predictions, and of its true occurrences. A score of
0/0 is defined as 0, as in scikit-learn and seqeval.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jaxlm.tasks.scores import ratio

# names that `render` shows
_SHOWN = 40


class Scores(NamedTuple):
    """Precision, recall and F1, each a number or one for each name [C]."""

    precision: Any
    recall: Any
    f1: Any


def scores(correct: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> Scores:
    """The scores of counts of any shape."""
    return Scores(
        ratio(correct, predicted), ratio(correct, true), ratio(2 * correct, predicted + true)
    )


def micro(counts: np.ndarray) -> Scores:
    """The scores of all decisions together, from counts [3, C]: correct, predicted, true."""
    return scores(*np.asarray(counts, np.float64).sum(1))


def macro(counts: np.ndarray) -> Scores:
    """The means of the scores over all names, those that never occur included."""
    each = scores(*np.asarray(counts, np.float64))
    return Scores(*(np.float64(x.mean()) if x.size else np.float64(0) for x in each))


def render(counts: np.ndarray, names: Sequence[str], what: str) -> str:
    """A table of the scores by name as plain text, of many names the most frequent ones."""
    counts = np.asarray(counts, np.float64)
    each = scores(*counts)
    order = np.argsort(-counts[2], kind="stable")
    table = Table(what, box=box.SIMPLE_HEAD)
    for name in (*Scores._fields, "support"):
        table.add_column(name, justify="right")
    for i in np.sort(order[:_SHOWN]):
        # no name is cut: it may have no spaces
        table.add_row(names[i], *(f"{x[i]:.4f}" for x in each), f"{counts[2, i]:,.0f}")
    table.add_section()
    means = {"all decisions (micro)": micro(counts), f"mean of {len(names)} (macro)": macro(counts)}
    for name, row in means.items():
        table.add_row(name, *(f"{x:.4f}" for x in row), f"{counts[2].sum():,.0f}")
    text = io.StringIO()
    # names must not be parsed as markup
    Console(file=text, width=160, color_system=None, markup=False, emoji=False).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    if len(names) > _SHOWN:
        lines.append(f"({len(names) - _SHOWN} rarer ones are not shown)")
    return "\n".join(lines)
