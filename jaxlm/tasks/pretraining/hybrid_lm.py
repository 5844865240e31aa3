"""Masked and causal language modeling with one decoder, by row (GPT-BERT)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlm.data import corruption, counter
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.rows import CorruptedRows, Keys, TextRows, next_tokens
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.pretraining.decoder import DecoderTask, next_token_loss, text_rows
from jaxlm.tasks.pretraining.masking import MaskingConfig, maskable
from jaxlm.tasks.task import Context, Loss, Purpose

_KIND = 0x4B


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridLMConfig(MaskingConfig):
    """Masked and causal language modeling with one decoder (GPT-BERT, Charpentier and Samuel 2024, 2410.24159).

    In masked rows every token attends to its whole text, and a masked token is predicted at the position before it, as
    in causal rows.
    """

    # fraction of the rows that are masked
    masked_rows_fraction: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("masked_rows_fraction")


class HybridLM(DecoderTask):
    """See `HybridLMConfig`."""

    Config = HybridLMConfig
    name = "hybrid"
    roles = ("mask", "eos")

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Whole texts, a fraction of the rows masked."""
        packed = text_rows(data, self.tokenizer, self.config.data.seq_len)
        corrupt = functools.partial(
            mask_some_rows, tokenizer=self.tokenizer, settings=self.settings
        )
        return CorruptedRows(packed, corrupt, self.config.seed)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of next tokens; in evaluation also separately for masked and causal rows."""
        loss = next_token_loss(self.model, params, batch, context)
        if context.train:
            return loss
        in_masked_row = batch["prefix"].any(axis=1)
        part = {**batch, "weights": batch["weights"] * in_masked_row[:, None]}
        masked = next_token_loss(self.model, params, part, context)
        kinds = {
            "all_rows": jnp.stack([loss.total, loss.weight]),
            "masked_rows": jnp.stack([masked.total, masked.weight]),
        }
        return loss._replace(sums=kinds)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """The metrics of a decoder; in evaluation also masked_loss and causal_loss, if there are such rows."""
        metrics = super().metrics(means, sums)
        if sums:
            masked, everything = sums["masked_rows"], sums["all_rows"]
            kinds = {"masked_loss": masked, "causal_loss": everything - masked}
            metrics |= {name: float(x[0] / x[1]) for name, x in kinds.items() if x[1] > 0}
        return metrics


def mask_some_rows(
    packed: TextRows,
    members: Members,
    keys: Keys,
    *,
    tokenizer: Tokenizer,
    settings: HybridLMConfig,
) -> Batch:
    """tokens, segment_ids, positions, targets, weights [n, T]; prefix [n, T] bool: the texts of masked rows."""
    assert tokenizer.mask_id is not None
    rows = next_tokens(packed.build_rows(packed.take(members), members))
    is_masked = counter.uniform(counter.bits(keys.rows, _KIND)) < settings.masked_rows_fraction
    inputs, _, masked = corruption.mask_tokens(
        rows["tokens"],
        # the first token has no position before it
        maskable=maskable(rows, tokenizer) & (rows["positions"] > 0),
        keys=keys.rows,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.not_text,
        mask_id=tokenizer.mask_id,
        **settings.options,
    )
    masked_next = np.zeros_like(masked)
    masked_next[:, :-1] = masked[:, 1:]
    is_masked = is_masked[:, None]
    return {
        **rows,
        "tokens": np.where(is_masked, inputs, rows["tokens"]),
        "weights": np.where(is_masked, rows["weights"] * masked_next, rows["weights"]),
        "prefix": is_masked & (rows["segment_ids"] > 0),
    }
