"""Reads metrics.jsonl, which has the training and validation metrics of a run, one JSON object per line."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from typing import Any


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order.

    An incomplete last line, left by a crash, is skipped; so is, with a warning, every other line that is not a JSON
    object with a step, for no checkpoint needs it.
    """
    lines = pathlib.Path(path).read_bytes().splitlines(keepends=True)
    rows = []
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif line.endswith(b"\n"):
            warnings.warn(
                f"{path}:{i + 1}: not a JSON object with a step: the line is left out", stacklevel=2
            )
    return rows
