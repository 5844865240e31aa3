"""Scaling of rotary positions."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.values import check_positive, check_values

# the two whose frequencies depend on the length of the text
BY_LENGTH = ("dynamic", "longrope")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Scaling of rotary frequencies for texts longer than those of the original training.

    With `dynamic` and `longrope` the frequencies depend on the length of the row: they are the original ones (of
    `longrope`: those of `short_factor`) up to `original_max_len`, and change for the whole row beyond it. A text that
    is written token by token would need all its keys anew at that point, so generation stops at `original_max_len`.
    """

    # linear: Chen et al. 2023 (2306.15595); yarn: Peng et al. 2023 (2309.00071); llama3: Llama 3.1's by wavelength;
    # dynamic: the NTK-aware base of the row's length (2309.00071, section 3.3); longrope: Ding et al. 2024 (2402.13753)
    kind: Literal["linear", "llama3", "yarn", "dynamic", "longrope"]
    # factor by which positions are scaled; longrope: of the whole text, only for `attention_factor`
    factor: float
    # maximum length of the original training
    original_max_len: int = 8192
    # llama3: wavelengths above original_max_len / low_freq_factor are scaled by the full factor
    low_freq_factor: float = 1.0
    # llama3: wavelengths below original_max_len / high_freq_factor are not scaled
    high_freq_factor: float = 4.0
    # yarn: number of rotations over original_max_len above which a frequency is not scaled
    beta_fast: float = 32.0
    # yarn: number of rotations below which a frequency is scaled by the full factor
    beta_slow: float = 1.0
    # yarn: whether the pairs between which frequencies are interpolated are whole numbers
    whole_pairs: bool = True
    # yarn and longrope: factor on cosines and sines; None: as in the paper, from `factor`
    attention_factor: float | None = None
    # longrope: divisor of the frequency of each rotated pair, in rows of up to original_max_len, and in longer ones
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self):
        check_values(self, "model.rope_scaling")
        if self.factor <= 0:
            raise ValueError(f"model.rope_scaling.factor={self.factor} must be positive")
        if self.original_max_len < 1:
            raise ValueError(
                f"model.rope_scaling.original_max_len={self.original_max_len} must be at least 1"
            )
        check_positive(self, "model.rope_scaling.", "attention_factor")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f"model.rope_scaling.{low}={getattr(self, low)} must be positive and below "
                    f"model.rope_scaling.{high}={getattr(self, high)}"
                )
        for name in ("short_factor", "long_factor"):
            factors = getattr(self, name)
            if bool(factors) != (self.kind == "longrope") or any(x <= 0 for x in factors):
                raise ValueError(
                    f"model.rope_scaling.{name}={factors} must be positive numbers with kind=longrope, and empty "
                    f"with kind={self.kind}"
                )
        if len(self.short_factor) != len(self.long_factor):
            raise ValueError(
                f"model.rope_scaling.short_factor and long_factor have {len(self.short_factor)} and "
                f"{len(self.long_factor)} numbers: both need one for each rotated pair"
            )

    @property
    def by_length(self) -> bool:
        """Whether the frequencies depend on the length of the row."""
        return self.kind in BY_LENGTH
