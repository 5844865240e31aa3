"""The config of low-rank adapters."""

from __future__ import annotations

import dataclasses

from jaxlm.config.values import check_values

ALL_LINEAR = "all-linear"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (LoRA, Hu et al. 2021, 2106.09685): trained in place of the matrices that they are added to.

    Everything else is frozen, except for what `train` names.
    """

    # rank of the adapters; 0: none, every parameter is trained
    rank: int = 0
    # what the adapters add is multiplied by alpha / rank; default: twice the rank
    alpha: float | None = None
    # multiply by alpha / sqrt(rank) instead, so that high ranks learn as well (rsLoRA, Kalajdzievski 2023, 2312.03732)
    rslora: bool = False
    # matrices that get an adapter: names ("query", "value"), patterns of paths ("*decoder*/query"), or all-linear: all
    # matrices of the blocks; "embedding" and "unembedding" are the tables of tokens
    targets: tuple[str, ...] = (ALL_LINEAR,)
    # patterns of parameters that are trained as a whole besides; default: the head, unless it predicts tokens
    train: tuple[str, ...] | None = None

    def __post_init__(self):
        check_values(self, "lora")
        if self.rank < 0:
            raise ValueError(f"lora.rank={self.rank} must not be negative")
        if self.rank == 0:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    raise ValueError(
                        f"lora.{field.name}={getattr(self, field.name)} has no effect without adapters: set lora.rank"
                    )
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"lora.alpha={self.alpha} must be positive")
        for name in ("targets", "train"):
            if isinstance(getattr(self, name), str):
                raise ValueError(
                    f"lora.{name} is the text {getattr(self, name)!r}, not a tuple: write ({getattr(self, name)!r},)"
                )
        if not self.targets:
            raise ValueError('lora.targets names no matrix: give names such as ("query", "value")')
        for pattern in self.train or ():
            if "[" in pattern:
                raise ValueError(
                    f"lora.train: {pattern!r} names single blocks; blocks have adapters: name them in lora.targets"
                )

    @property
    def scale(self) -> float:
        """What the product of an adapter is multiplied by."""
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)
