"""The config of differentially private training."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.values import check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """Differentially private training (Abadi et al. 2016, 1607.00133); off without `epsilon`. See docs/privacy.md.

    `batch_size` becomes the expected number of units (rows, or people) in a step: each is drawn by itself.
    """

    # privacy budget of the whole run, together with delta
    epsilon: float | None = None
    # probability with which the budget may be exceeded; less than 1 / the number of units, such as 1e-5
    delta: float | None = None
    # norm to which the gradient of each unit is clipped
    clip: float = 1.0
    # units whose gradients are in memory at the same time, over all devices
    microbatch: int = 8
    # column that names the person (or any other unit) that a row belongs to; default: every row is a unit
    unit: str | None = None
    # rows that a unit gives to a step at most; of a unit with more rows they are drawn anew at each step
    rows_per_unit: int = 1
    # what you state to be public although the run takes it from files that it cannot tell from the private ones:
    # tokenizer (trained on the training text), settings (of the task, such as class names, read from the training
    # data), validation (the validation data, by which checkpoints are selected or the run is stopped)
    public: tuple[Literal["tokenizer", "settings", "validation"], ...] = ()
    # makes noise and sampling repeatable, for tests: who knows it can remove the noise; default: a secret of the run
    noise_seed: int | None = None

    def __post_init__(self):
        check_values(self, "privacy")
        if self.epsilon is None:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    raise ValueError(
                        f"privacy.{field.name}={getattr(self, field.name)} has no effect without a budget: set "
                        "privacy.epsilon too"
                    )
            return
        if self.epsilon <= 0:
            raise ValueError(f"privacy.epsilon={self.epsilon} must be positive")
        if self.delta is None:
            raise ValueError(
                f"privacy.epsilon={self.epsilon} needs a privacy.delta: less than 1 / the number of rows, such as 1e-5"
            )
        if not 0 < self.delta < 1:
            raise ValueError(f"privacy.delta={self.delta} is not between 0 and 1")
        if self.clip <= 0:
            raise ValueError(f"privacy.clip={self.clip} must be positive")
        for name in ("microbatch", "rows_per_unit"):
            if getattr(self, name) < 1:
                raise ValueError(f"privacy.{name}={getattr(self, name)} must be at least 1")
        if self.noise_seed is not None and not 0 <= self.noise_seed < 2**63:
            raise ValueError(f"privacy.noise_seed={self.noise_seed} is not in [0, 2^63)")

    @property
    def is_on(self) -> bool:
        """Whether the run is private."""
        return self.epsilon is not None
