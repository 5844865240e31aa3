"""The progress of a run, apart from arrays, that a resumed run needs."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass
class Progress:
    """Counters and results of a run, saved as a JSON item of every checkpoint."""

    # best value of the task's metric so far, and its step
    best: float | None = None
    best_step: int = 0
    # evaluations since the best one
    stale: int = 0
    # metrics of the last evaluation
    evaluation: dict[str, float] = dataclasses.field(default_factory=dict)
    # steps whose loss or gradient was not finite: total, and current consecutive number
    skipped: int = 0
    bad_in_a_row: int = 0
    # wall-clock time of all sessions of this run
    seconds: float = 0.0
    # the part of it that was spent in steps
    step_seconds: float = 0.0
    # fingerprint of the reference model, where the task has one
    reference: str | None = None
    # fingerprint of the tokenizer, where the task has one
    tokenizer: str | None = None

    def evaluated(self, step: int, metrics: dict[str, float], metric: str, lower: bool) -> bool:
        """Records an evaluation; returns whether it is the best so far."""
        # some metrics cannot be computed from every sample of the data
        value = metrics.get(metric, math.nan)
        self.evaluation = metrics
        known = self.best is not None and math.isfinite(self.best)
        # a value that is not finite is never the best
        better = math.isfinite(value) and (
            not known or (value < self.best if lower else value > self.best)  # type: ignore[operator]
        )
        if better:
            self.best, self.best_step, self.stale = value, step, 0
        else:
            self.stale += 1
        return better

    def has_stalled(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations did not improve on the best; None: never."""
        return patience is not None and self.stale >= patience

    def why_stopped(self, step: int, metric: str) -> str:
        """Why early stopping ended the run after a step, in a line."""
        best = (
            "never finite"
            if self.best is None
            else f"{self.best:.4f} after step {self.best_step:,}"
        )
        return (
            f"stopped early after step {step:,}: {metric} has not improved in {self.stale} evaluations in a row; "
            f"the best was {best}"
        )


class Diverged(RuntimeError):
    """Too many consecutive steps were not finite."""

    exit_code = 1
