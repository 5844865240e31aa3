"""Common parts of objectives that mask tokens: settings, rows of an encoder, the loss on masked tokens, previews."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxlm.config import EncoderConfig, TaskConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.rows import Keys, TextRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import flops
from jaxlm.tasks import task
from jaxlm.tasks.task import Piece, Task

Unit = Literal["token", "word", "ngram", "span"]

# probabilities of 1, 2, ... words in a masked unit: ALBERT's n-grams, SpanBERT's spans
_RUNS = {
    "ngram": corruption.ngram_chances(3),
    "span": corruption.geometric_chances(0.2, 10),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig(TaskConfig):
    """Which tokens are masked, and what replaces them."""

    # fraction of the tokens to predict (ModernBERT, Warner et al. 2024, 2412.13663: 0.3)
    mask_fraction: float = 0.15
    # of those, the fraction replaced by the mask token
    mask_token_fraction: float = 0.8
    # of those, the fraction replaced by a random token; the rest are unchanged
    random_token_fraction: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        self.check_between_0_and_1("mask_fraction")
        self.check_fractions("mask_token_fraction", "random_token_fraction")
        if self.mask_token_fraction + self.random_token_fraction > 1:
            raise ValueError(
                f"task.mask_token_fraction={self.mask_token_fraction} and task.random_token_fraction="
                f"{self.random_token_fraction} must add up to at most 1"
            )

    @property
    def options(self) -> dict[str, Any]:
        """These fields as arguments of `corruption.mask_tokens`."""
        return dict(
            mask_fraction=self.mask_fraction,
            mask_token_fraction=self.mask_token_fraction,
            random_token_fraction=self.random_token_fraction,
        )


class EncoderTask(Task):
    """An encoder objective on plain text that predicts masked tokens."""

    backbones = (EncoderConfig,)
    roles = ("mask", "cls", "sep", "pad")

    def text_rows(self, docs: TokenDocuments, extra: int = 0) -> TextRows:
        """Rows of whole texts, [CLS] text [SEP] each; `extra` reserves room for tokens that a corruption adds."""
        t = self.tokenizer
        assert t.pad_id is not None
        return TextRows.of(
            docs,
            self.config.data.seq_len,
            pad_id=t.pad_id,
            prefix_id=t.cls_id,
            suffix_id=t.sep_id,
            extra=extra,
        )

    def cost(self, seq_len: int) -> float:
        """FLOPs of an encoder with logits at the masked positions."""
        return flops.flops_per_token(
            self.backbone, seq_len, output_fraction=self.settings.mask_fraction
        )

    def preview(self, row: Batch) -> list[Piece]:
        """Each token, whether it is predicted, and its original."""
        text = lambda i: self.tokenizer.piece(int(i))
        masked = {int(i): t for i, t, w in zip(row["at"], row["targets"], row["weights"]) if w}
        starts = task.begins(row["segment_ids"])
        return [
            Piece(text(token), i in masked, text(masked[i]) if i in masked else None, bool(new))
            for i, (token, new) in enumerate(zip(row["tokens"], starts))
        ]


def maskable(rows: Batch, tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens may be masked [n, T] bool: neither padding nor control tokens."""
    return (rows["segment_ids"] > 0) & ~np.isin(rows["tokens"], sorted(tokenizer.special_ids))


def mask(
    tokens: np.ndarray, allowed: np.ndarray, keys: np.ndarray, tokenizer: Tokenizer, **options: Any
) -> Batch:
    """Rows with masked tokens, and their positions, targets and weights: tokens [n, T]; at, targets, weights [n, P],
    with P the maximum per row. `options` are those of `corruption.mask_tokens`."""
    assert tokenizer.mask_id is not None
    inputs, targets, weights = corruption.mask_tokens(
        tokens,
        maskable=allowed,
        keys=keys,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.not_text,
        mask_id=tokenizer.mask_id,
        **options,
    )
    # masked positions first, in order; a few are dropped if whole-word masking chose more than P
    most = min(round(options["mask_fraction"] * tokens.shape[1]) + 1, tokens.shape[1])
    at = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    return {
        "tokens": inputs,
        "at": at.astype(np.int32),
        "targets": np.take_along_axis(targets, at, axis=1),
        "weights": np.take_along_axis(weights, at, axis=1),
    }


def mask_rows(
    packed: TextRows,
    members: Members,
    keys: Keys,
    *,
    tokenizer: Tokenizer,
    options: dict[str, float],
    unit: Unit = "token",
) -> Batch:
    """tokens, segment_ids, positions [n, T]; at, targets, weights [n, P]: positions of masked tokens, see `mask`."""
    rows = packed.build_rows(packed.take(members), members)
    row_keys = keys.rows
    allowed = maskable(rows, tokenizer)
    word_starts = units = None
    if unit != "token":
        word_starts = tokenizer.word_starts(rows["tokens"])
    if unit in _RUNS:
        assert word_starts is not None
        units = corruption.unit_starts(word_starts, ~allowed, row_keys, _RUNS[unit])
    together = dict(word_starts=word_starts, units=units)
    return {**rows, **mask(rows["tokens"], allowed, row_keys, tokenizer, **together, **options)}
