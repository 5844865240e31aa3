"""Several runs that differ in their seed: means and deviations of their metrics, as a summary and as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def summarise(name: str, run_dir: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A summary of the summaries of runs.

    Args:
        name: of the runs together.
        run_dir: the folder of their folders.
        runs: their summaries.

    Returns:
        with the means over the runs under "evaluation" (after the last step) and "best" (at the best checkpoint of
        each), and the deviations, with n - 1, under "deviation" and "best_deviation". A metric that a run lacks, or
        that is not a finite number, is None.
    """
    last = [run.get("evaluation") or {} for run in runs]
    best = [{k: v for k, v in (run.get("best") or {}).items() if k != "step"} for run in runs]
    sign = 1 if runs[0]["lower_is_better"] else -1
    scores = [b.get(runs[0]["metric"]) for b in best]
    known = [(sign * x, run["seed"]) for x, run in zip(scores, runs) if x is not None]
    return {
        "name": name,
        "run_dir": run_dir,
        "seeds": [run["seed"] for run in runs],
        "evaluation": _each(last, statistics.fmean),
        "deviation": _each(last, statistics.stdev),
        "best": _each(best, statistics.fmean),
        "best_deviation": _each(best, statistics.stdev),
        "best_seed": min(known)[1] if known else None,
        "wall_seconds": sum(run["wall_seconds"] for run in runs),
        "runs": [
            {key: run.get(key) for key in ("seed", "run_dir", "steps", "evaluation", "best")}
            for run in runs
        ],
    }


def _each(rows: Sequence[Mapping[str, Any]], reduce: Any) -> dict[str, float | None]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {
        name: reduce(values)
        if all(isinstance(x, (int, float)) and math.isfinite(x) for x in values)
        else None
        for name, values in columns.items()
    }


def table(summary: Mapping[str, Any]) -> str:
    """A line for each metric: its value for each seed, mean and deviation; the best checkpoints' metric first."""
    rows = []
    for part, spread, prefix in (
        ("best", "best_deviation", "best "),
        ("evaluation", "deviation", ""),
    ):
        for name, mean in summary[part].items():
            values = [_number((run[part] or {}).get(name)) for run in summary["runs"]]
            deviation = _number(summary[spread][name])
            rows.append([prefix + name, *values, f"{_number(mean)} ± {deviation}"])
    head = ["", *(f"seed {seed}" for seed in summary["seeds"]), "mean ± deviation"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:]))])
        for row in [head, *rows]
    )


def closing_lines(summary: Mapping[str, Any]) -> str:
    """The table and the folder, for the end of the output."""
    count = len(summary["seeds"])
    return (
        f"{summary['name']}: {count} seeds in {summary['wall_seconds']:.0f} s\n{table(summary)}\n"
        f"outputs are in {summary['run_dir']} (summary.json, and a folder for each seed)"
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
