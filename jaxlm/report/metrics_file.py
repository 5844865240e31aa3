"""Reads metrics.jsonl, the training and validation metrics of a run as one JSON object per line."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order; a last line that a crash cut short is skipped.

    Raises:
        ValueError: any other line is not a JSON object with a step.
    """
    lines = pathlib.Path(path).read_bytes().splitlines(keepends=True)
    rows = []
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif line.endswith(b"\n"):
            raise ValueError(f"{path}:{i + 1}: not a JSON object with a step; remove the line")
    return rows
