"""Masked language modeling: predict masked tokens from the context on both sides."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.data.documents import TokenDocuments
from jaxlm.data.rows import CorruptedRows
from jaxlm.models import heads
from jaxlm.tasks.pretraining.masking import (
    EncoderTask,
    MaskingConfig,
    Unit,
    mask_rows,
)
from jaxlm.tasks.pretraining.token_loss import token_loss, with_perplexity
from jaxlm.tasks.task import Context, Loss, Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLMConfig(MaskingConfig):
    """Predict masked tokens from the context on both sides (BERT, Devlin et al. 2018, section 3.1)."""

    # unit of masking: a token, all pieces of a word, one to three words (ALBERT), or a run of words of geometric
    # length, 3.8 on average (SpanBERT)
    unit: Unit = "token"


class MaskedLM(EncoderTask):
    """See `MaskedLMConfig`."""

    Config = MaskedLMConfig
    name = "masked_lm"

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> MaskedLMConfig | None:
        """The default settings, for a masked language model."""
        return MaskedLMConfig() if isinstance(model, heads.MaskedLM) else None

    def make_model(self) -> heads.MaskedLM:
        """An encoder with the head of a masked language model."""
        return heads.MaskedLM(self.backbone, self.config.compute)

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Whole texts with new masks in each epoch."""
        s = self.settings
        if s.unit != "token":
            # a tokenizer that does not tell words apart is refused here, not in the first batch
            self.tokenizer.word_starts(np.zeros((1, 1), np.int32))
        corrupt = functools.partial(
            mask_rows, tokenizer=self.tokenizer, unit=s.unit, options=s.options
        )
        return CorruptedRows(self.text_rows(data), corrupt, self.config.seed)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the masked tokens; logits are computed at their positions only."""
        hidden: Any = self.model.apply(
            {"params": params},
            batch["tokens"],
            batch["at"],
            segment_ids=batch["segment_ids"],
            positions=batch["positions"],
            key=context.dropout_key,
            method="hidden",
        )
        return token_loss(hidden, params, batch)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss in nats per masked token, perplexity, and the fraction predicted correctly."""
        return with_perplexity(means)
