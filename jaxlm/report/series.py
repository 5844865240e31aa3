"""Single metrics of a metrics.jsonl as arrays, for plots."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def series(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and finite values [n] of one metric."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = np.array(points, float).reshape(-1, 2).T
    return steps, values


def phase_starts(rows: list[dict[str, Any]]) -> list[int]:
    """The first steps of all phases of a run but the first."""
    phases = [(row["step"], row["phase"]) for row in rows if row.get("phase") is not None]
    return [step for (_, before), (step, after) in itertools.pairwise(phases) if before != after]


def smoothed(values: np.ndarray) -> np.ndarray:
    """A moving median, then a moving mean [n], over 1/40 of the points: single spikes are suppressed."""
    radius = len(values) // 80
    if radius == 0:
        return values
    for average in (np.median, np.mean):
        padded = np.pad(values, radius, mode="edge")
        values = average(np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1), axis=-1)
    return values
