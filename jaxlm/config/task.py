"""What is learnt: one configuration for each task of `jaxlm.tasks`."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalLMConfig:
    """Predict each token from those before it, in windows over documents joined end to end."""

    # begin each epoch at another offset, so that windows cut the text at other places
    shift_windows: bool = True
    # weight of the squared log-partition, which keeps logits from drifting (PaLM, 2204.02311, section 5)
    z_loss: float = 0.0
    # share of the target spread evenly over the vocabulary (Szegedy et al. 2015, 1512.00567)
    label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLMConfig:
    """Restore masked tokens from both sides (BERT, Devlin et al. 2018, section 3.1)."""

    # share of the tokens to restore
    rate: float = 0.15
    # of those, the share replaced by the mask token
    mask_share: float = 0.8
    # of those, the share replaced by a random token; the rest stay as they are
    random_share: float = 0.1
    # mask all pieces of a word together
    whole_word: bool = False

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise ValueError(f"task.rate={self.rate} is not between 0 and 1")
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1:
            raise ValueError(
                f"task.mask_share={self.mask_share} and task.random_share={self.random_share} must be "
                "shares that add up to at most 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Name the class of a text or of a pair of texts."""

    # class names in the order of the output; nothing: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # where the head reads: first token, last one, or mean of all; auto: first for encoders, last for decoders
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    # on the pooled vector
    dropout: float = 0.1
    label_smoothing: float = 0.0


TaskConfig = CausalLMConfig | MaskedLMConfig | ClassificationConfig
