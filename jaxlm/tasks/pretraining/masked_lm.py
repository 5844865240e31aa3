"""Masked language modelling: restore tokens that were hidden, from the text on both sides."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxlm.config import EncoderConfig, MaskedLMConfig, ModelConfig, RunConfig
from jaxlm.data import corruption, counter
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.rows import TextRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.sharding import batch_shards
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import causal_lm
from jaxlm.tasks.task import Corpora, Piece, Sums, Task

load = task.load_documents
added_tokens = task.no_tokens
summarize = causal_lm.summarize

# words in a run, and how likely: ALBERT's n-grams, SpanBERT's spans
_RUNS = {
    "ngram": corruption.ngram_chances(3),
    "span": corruption.geometric_chances(0.2, 10),
}


@dataclasses.dataclass(frozen=True)
class MaskedRows:
    """Rows of whole texts, [CLS] text [SEP] each, masked anew whenever they are read.

    Only `at` places a row, the masked ones, have targets: the model computes logits for those alone.
    """

    text: TextRows
    tokenizer: Tokenizer
    settings: MaskedLMConfig
    seed: int

    def __len__(self) -> int:
        return len(self.text)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.text.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions [n, T]; at, targets, weights [n, P], P places for masked tokens."""
        t, s = self.tokenizer, self.settings
        members = self.text.members(indices)
        rows = self.text.lay(self.text.take(members), members)
        keys = counter.bits(self.seed, epochs, indices)
        ordinary = maskable(rows, t)
        word_starts = units = None
        if s.unit != "token":
            word_starts = t.word_starts(rows["tokens"])
        if s.unit in _RUNS:
            assert word_starts is not None
            units = corruption.unit_starts(word_starts, ~ordinary, keys, _RUNS[s.unit])
        masks = dict(word_starts=word_starts, units=units)
        return {
            **rows,
            **masked(
                rows["tokens"],
                ordinary,
                keys,
                t,
                rate=s.rate,
                mask_share=s.mask_share,
                random_share=s.random_share,
                **masks,
            ),
        }


def encoder_rows(
    config: RunConfig, tokenizer: Tokenizer, docs: TokenDocuments, name: str, extra: int = 0
) -> TextRows:
    """Rows of whole texts for an encoder; `extra` is room in each text for tokens that a corruption adds."""
    task.need_roles(tokenizer, name, "mask", "cls", "sep", "pad")
    assert tokenizer.pad_id is not None
    return TextRows.of(
        docs,
        config.data.seq_len,
        pad_id=tokenizer.pad_id,
        prefix_id=tokenizer.cls_id,
        suffix_id=tokenizer.sep_id,
        extra=extra,
    )


def maskable(rows: dict[str, np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens may be hidden [n, T] bool: neither padding nor control tokens."""
    return (rows["segment_ids"] > 0) & ~np.isin(rows["tokens"], sorted(tokenizer.special_ids))


def masked(
    tokens: np.ndarray, ordinary: np.ndarray, keys: np.ndarray, tokenizer: Tokenizer, **options: Any
) -> dict[str, np.ndarray]:
    """Rows with hidden tokens [n, T], and where these are, what they were and whether they count: at, targets, weights
    [n, P]. `options` go to `corruption.mask_tokens`."""
    assert tokenizer.mask_id is not None
    inputs, targets, weights = corruption.mask_tokens(
        tokens,
        maskable=ordinary,
        keys=keys,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.special_ids,
        mask_id=tokenizer.mask_id,
        **options,
    )
    # masked places first, in order; whole words may ask for a few more than there is room for
    places = min(round(options["rate"] * tokens.shape[1]) + 1, tokens.shape[1])
    at = np.argsort(-weights, axis=1, kind="stable")[:, :places]
    return {
        "tokens": inputs,
        "at": at.astype(np.int32),
        "targets": np.take_along_axis(targets, at, axis=1),
        "weights": np.take_along_axis(weights, at, axis=1),
    }


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, MaskedLMConfig)
    backbone = task.need_model(model, EncoderConfig, "masked_lm")
    lm = heads.MaskedLM(backbone, config.compute)

    def rows(docs: TokenDocuments, training: bool) -> MaskedRows:
        text = encoder_rows(config, tokenizer, docs, "masked_lm")
        return MaskedRows(text, tokenizer, settings, config.seed)

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        hidden: Any = lm.apply(
            {"params": params},
            batch["tokens"],
            batch["at"],
            segment_ids=batch["segment_ids"],
            positions=batch["positions"],
            key=key,
            method="hidden",
        )
        return restoring_loss(hidden, params, batch)

    train, validation = task.datasets(config, corpora, tokenizer, rows)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=loss,
        summarize=summarize,
        output_share=settings.rate,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: preview(row, tokenizer),
    )


def restoring_loss(hidden: jax.Array, params: Any, batch: dict) -> tuple[jax.Array, Sums]:
    """Cross entropy of the hidden tokens, from the hidden states [B, P, D] of their places."""
    sums = losses.token_cross_entropy(
        hidden,
        heads.unembedding(params),
        batch["targets"],
        batch["weights"],
        bias=heads.unembedding_bias(params),
        shards=batch_shards(),
    )
    weight = batch["weights"].sum()
    return sums.loss, {"loss": sums.loss, "correct": sums.correct, "weight": weight}


def preview(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> list[Piece]:
    """Each token of a row, whether it is to be restored, and what it was."""
    text = lambda i: tokenizer.decode([int(i)], skip_special=False)
    hidden = {int(i): t for i, t, w in zip(row["at"], row["targets"], row["weights"]) if w}
    begins = task.begins(row["segment_ids"])
    return [
        Piece(text(token), i in hidden, text(hidden[i]) if i in hidden else None, bool(new))
        for i, (token, new) in enumerate(zip(row["tokens"], begins))
    ]
