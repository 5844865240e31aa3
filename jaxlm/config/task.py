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

    # share of the tokens to restore (ModernBERT, Warner et al. 2024, 2412.13663: 0.3)
    rate: float = 0.15
    # of those, the share replaced by the mask token
    mask_share: float = 0.8
    # of those, the share replaced by a random token; the rest stay as they are
    random_share: float = 0.1
    # what is masked together: a token, all pieces of a word, one to three words (ALBERT), or a run of words of
    # geometric length, 3.8 on average (SpanBERT)
    unit: Literal["token", "word", "ngram", "span"] = "token"

    def __post_init__(self):
        _check_masking(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixLMConfig:
    """Continue a text whose beginning, of random length, is seen from both sides (T5, 1910.10683, section 3.2.3)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillInMiddleConfig:
    """Causal language modelling of texts whose middle often stands at the end (Bavarian et al. 2022, 2207.14255)."""

    # share of the texts that are changed
    rate: float = 0.5
    # of those, the share that has the suffix before the prefix (SPM)
    spm_share: float = 0.5

    def __post_init__(self):
        _check_shares(self, "rate", "spm_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridLMConfig:
    """Masked and causal language modelling by one decoder (GPT-BERT, Charpentier and Samuel 2024, 2410.24159).

    In masked rows every token sees its whole text, and what is masked is predicted one place before, as in causal rows.
    """

    # share of the rows that are masked
    masked_share: float = 0.5
    # share of the tokens to restore, in masked rows
    rate: float = 0.15
    # of those, the share replaced by the mask token
    mask_share: float = 0.8
    # of those, the share replaced by a random token; the rest stay as they are
    random_share: float = 0.1

    def __post_init__(self):
        _check_masking(self)
        _check_shares(self, "masked_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanCorruptionConfig:
    """Write what stood behind sentinels in a text (T5, Raffel et al. 2020, 1910.10683, section 3.1.4)."""

    # share of the tokens that are hidden
    density: float = 0.15
    # mean length of a hidden span
    mean_span: float = 3.0
    # target tokens in a row; nothing: as many as data.seq_len input tokens need
    target_len: int | None = None

    def __post_init__(self):
        if not 0 < self.density < 1:
            raise ValueError(f"task.density={self.density} is not between 0 and 1")
        if self.mean_span < 1:
            raise ValueError(f"task.mean_span={self.mean_span} must be at least 1")
        _check_target_len(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UL2Config:
    """A mixture of regular, sequential and extreme denoising, each with its mode token (Tay et al. 2022, 2205.05131).

    R hides 15 percent in spans of 3 or 8, S the last quarter, X half of the text in spans of 3 or 8, or 15 or 50
    percent in spans of 64. Kinds are drawn for whole rows; within R and X their settings are equally likely.
    """

    # share of the rows with short spans; the paper takes each of its seven settings equally often
    regular_share: float = 2 / 7
    # share of the rows with one span at the end
    sequential_share: float = 1 / 7
    # share of the rows with long spans or many of them
    extreme_share: float = 4 / 7
    # target tokens in a row; nothing: data.seq_len
    target_len: int | None = None

    def __post_init__(self):
        _check_shares(self, "regular_share", "sequential_share", "extreme_share")
        total = self.regular_share + self.sequential_share + self.extreme_share
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"task.regular_share, task.sequential_share and task.extreme_share add up to {total}, not to 1"
            )
        _check_target_len(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """Write a text from a corrupted one (BART, Lewis et al. 2019, 1910.13461, section 2.2)."""

    # share of the tokens hidden by infilling: spans of Poisson length, each one mask
    infill_rate: float = 0.3
    # mean length of a span
    mean_span: float = 3.0
    # share of the texts whose sentences are shuffled
    permute_share: float = 1.0
    # share of the tokens that are left out
    delete_rate: float = 0.0
    # share of the texts that begin at a random token
    rotate_share: float = 0.0

    def __post_init__(self):
        _check_shares(self, "infill_rate", "permute_share", "delete_rate", "rotate_share")
        if self.mean_span <= 0:
            raise ValueError(f"task.mean_span={self.mean_span} must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplacedTokenConfig:
    """Tell which tokens a small masked language model has replaced (ELECTRA, Clark et al. 2020, 2003.10555).

    Both are trained together; the one that tells is the backbone. They share the token embeddings, so the generator has
    its width, and is smaller by its depth (as in DeBERTaV3, He et al. 2021, 2111.09543).
    """

    # share of the tokens that are masked, and replaced by what the generator samples
    rate: float = 0.15
    # blocks of the generator; nothing: half of the discriminator's
    generator_layers: int | None = None
    # what the discriminator's mean loss counts beside the generator's
    discriminator_weight: float = 50.0

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise ValueError(f"task.rate={self.rate} is not between 0 and 1")
        if self.generator_layers is not None and self.generator_layers < 1:
            raise ValueError(f"task.generator_layers={self.generator_layers} must be at least 1")
        if self.discriminator_weight <= 0:
            raise ValueError(
                f"task.discriminator_weight={self.discriminator_weight} must be positive"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePairConfig:
    """Masked language modelling of text pairs, and telling whether the second follows the first."""

    # order: half of the pairs are swapped (ALBERT, Lan et al. 2020, 1909.11942); next: half of the second parts are of
    # another document (BERT, Devlin et al. 2018, section 3.1); texts of fewer than two sentences are no pairs
    kind: Literal["order", "next"] = "order"
    # share of the tokens to restore
    rate: float = 0.15
    # of those, the share replaced by the mask token
    mask_share: float = 0.8
    # of those, the share replaced by a random token; the rest stay as they are
    random_share: float = 0.1

    def __post_init__(self):
        _check_masking(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Name the class of a text or of a pair of texts."""

    # class names in the order of the output; nothing: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # where the head reads: first token, last one, or mean of all; auto: first for encoders, last for decoders, mean of
    # the encoder's for encoder-decoders
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    # on the pooled vector
    dropout: float = 0.1
    # share of the target spread evenly over the classes
    label_smoothing: float = 0.0


TaskConfig = (
    CausalLMConfig
    | PrefixLMConfig
    | FillInMiddleConfig
    | HybridLMConfig
    | MaskedLMConfig
    | ReplacedTokenConfig
    | SentencePairConfig
    | SpanCorruptionConfig
    | UL2Config
    | DenoisingConfig
    | ClassificationConfig
)


def _check_masking(config: MaskedLMConfig | HybridLMConfig | SentencePairConfig) -> None:
    if not 0 < config.rate < 1:
        raise ValueError(f"task.rate={config.rate} is not between 0 and 1")
    if min(config.mask_share, config.random_share) < 0 or (
        config.mask_share + config.random_share > 1
    ):
        raise ValueError(
            f"task.mask_share={config.mask_share} and task.random_share={config.random_share} must be "
            "shares that add up to at most 1"
        )


def _check_shares(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"task.{name}={getattr(config, name)} is not in [0, 1]")


def _check_target_len(config: SpanCorruptionConfig | UL2Config) -> None:
    if config.target_len is not None and config.target_len < 3:
        raise ValueError(f"task.target_len={config.target_len} must be at least 3")
