"""Span corruption: an encoder-decoder predicts the spans that sentinels replace in its input (T5)."""

from __future__ import annotations

import dataclasses

from jaxlm.config import RunConfig, TaskConfig
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.rows import CorruptedRows
from jaxlm.tasks.pretraining.text_to_text import (
    Denoiser,
    EncoderDecoderTask,
    check_target_len,
    sentinel_names,
    span_rows,
)
from jaxlm.tasks.task import Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanCorruptionConfig(TaskConfig):
    """Predict the spans that sentinels replace in a text (T5, Raffel et al. 2020, 1910.10683, section 3.1.4)."""

    # fraction of the tokens that are replaced
    noise_fraction: float = 0.15
    # mean length of a span
    mean_span: float = 3.0
    # target tokens per row; default: as many as data.seq_len input tokens need
    target_len: int | None = None

    def __post_init__(self):
        super().__post_init__()
        self.check_between_0_and_1("noise_fraction")
        if self.mean_span < 1:
            raise ValueError(f"task.mean_span={self.mean_span} must be at least 1")
        check_target_len(self.target_len)


class SpanCorruption(EncoderDecoderTask):
    """See `SpanCorruptionConfig`."""

    Config = SpanCorruptionConfig
    name = "span_corruption"

    @classmethod
    def added_tokens(cls, config: RunConfig) -> list[str]:
        """The sentinels."""
        denoiser, target_len = _denoiser(config)
        return sentinel_names([denoiser], config.data.seq_len, target_len)

    @property
    def target_len(self) -> int:
        """The number set, or as many as the inputs need."""
        return _denoiser(self.config)[1]

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Pieces of documents with a new corruption in each epoch."""
        sentinels = self.tokenizer.ids_of(self.added_tokens(self.config))
        return span_rows(self, data, _denoiser(self.config)[0], sentinels)


def _denoiser(config: RunConfig) -> tuple[Denoiser, int]:
    """The denoiser of the config, and the target tokens per row."""
    settings = config.task
    assert isinstance(settings, SpanCorruptionConfig)
    denoiser = Denoiser(settings.noise_fraction, settings.mean_span)
    return denoiser, settings.target_len or denoiser.target_len(config.data.seq_len)
