"""Options of the optimizer and its learning-rate schedule."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.values import check_at_least, check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer by name, its learning-rate schedule and clipping."""

    # the optimizer
    name: Literal["adamw", "sgd", "adafactor", "lion", "muon", "schedule_free_adamw"] = "adamw"
    # peak learning rate
    learning_rate: float = 1e-3
    # wsd: warm-up, stable, decay (Hu et al. 2024, 2404.06395)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    # steps of linear warm-up
    warmup_steps: int = 100
    # wsd: fraction of all steps spent in the final decay
    decay_fraction: float = 0.2
    # final learning rate, as a fraction of the peak
    final_fraction: float = 0.1
    # decay of the running mean of the gradients (adam's beta 1), the momentum of sgd; of muon that of AdamW, which
    # trains all parameters that are no matrices of blocks, as b2 and eps
    b1: float = 0.9
    # decay of the running mean of the squared gradients (adam's beta 2)
    b2: float = 0.95
    # added to the denominator of adam's update
    eps: float = 1e-8
    # weight decay, on matrices only: never on biases, norms and position embeddings
    weight_decay: float = 0.1
    # clip gradients to this global norm; 0: no clipping
    clip_norm: float = 1.0

    def __post_init__(self):
        check_values(self, "optimizer")
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate={self.learning_rate} must be positive")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps={self.warmup_steps} must not be negative")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is not in [0, 1)")
        for name in ("decay_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is not in [0, 1]")
        if self.eps <= 0:
            raise ValueError(
                f"optimizer.eps={self.eps} must be positive: a parameter without a gradient would become 0 / 0"
            )
        check_at_least(self, "optimizer.", 0, "weight_decay", "clip_norm")
        if self.name == "schedule_free_adamw" and self.b1 == 0:
            raise ValueError(
                "optimizer.b1=0.0 leaves schedule_free_adamw no average to evaluate: set it in (0, 1)"
            )
        self._refuse_ignored()

    def _refuse_ignored(self) -> None:
        """Raises ValueError for options that have another value than by default, and no effect."""
        default = {f.name: f.default for f in dataclasses.fields(self)}
        ignored = ignored_options(self.name, self.schedule)
        idle = [name for name in ignored if getattr(self, name) != default[name]]
        if idle:
            given = " and ".join(f"optimizer.{name}={getattr(self, name)}" for name in idle)
            values = ", ".join(f"{name}={default[name]}" for name in idle)
            raise ValueError(
                f"{given} {'have' if len(idle) > 1 else 'has'} no effect with optimizer.name={self.name} and "
                f"optimizer.schedule={self.schedule}: leave the default ({values})"
            )


def ignored_options(name: str, schedule: str) -> tuple[str, ...]:
    """The fields of `OptimizerConfig` that an optimizer with this schedule does not read."""
    if name == "schedule_free_adamw":
        # its learning rate is constant, and to say so is no mistake
        rest = ("final_fraction", "decay_fraction")
        return rest if schedule == "constant" else ("schedule", *rest)
    of_name = {"adafactor": ("b1", "b2", "eps"), "lion": ("eps",), "sgd": ("b2", "eps")}
    of_schedule = {"constant": ("final_fraction", "decay_fraction"), "wsd": ()}
    return (*of_name.get(name, ()), *of_schedule.get(schedule, ("decay_fraction",)))
