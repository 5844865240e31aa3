"""Masked language modelling: restore tokens that were hidden, from the text on both sides."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxlm.config import EncoderConfig, MaskedLMConfig, ModelConfig, RunConfig
from jaxlm.data import corruption, documents, packing
from jaxlm.data.loader import Batch
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.sharding import batch_shards
from jaxlm.tasks import causal_lm, task
from jaxlm.tasks.task import Corpora, Sums, Task

load = task.load_documents
summarize = causal_lm.summarize


@dataclasses.dataclass(frozen=True)
class MaskedRows:
    """Rows of whole texts, [CLS] text [SEP] each, masked anew whenever they are read.

    Only `at` places a row, the masked ones, have targets: the model computes logits for those alone.
    """

    docs: documents.TokenDocuments
    packing: packing.Packing
    tokenizer: Tokenizer
    settings: MaskedLMConfig
    seed: int

    def __len__(self) -> int:
        return len(self.packing)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions [n, T]; at, targets, weights [n, P], P places for masked tokens."""
        t, s = self.tokenizer, self.settings
        assert t.pad_id is not None
        assert t.mask_id is not None
        rows = packing.packed_rows(
            self.docs,
            self.packing,
            indices,
            prefix_id=t.cls_id,
            suffix_id=t.sep_id,
            pad_id=t.pad_id,
        )
        maskable = (rows["segment_ids"] > 0) & ~np.isin(rows["tokens"], sorted(t.special_ids))
        inputs, targets, weights = corruption.mask_tokens(
            rows["tokens"],
            maskable=maskable,
            word_starts=t.word_starts(rows["tokens"]) if s.whole_word else None,
            vocab_size=t.vocab_size,
            special_ids=t.special_ids,
            mask_id=t.mask_id,
            rate=s.rate,
            mask_share=s.mask_share,
            random_share=s.random_share,
            seed=self.seed,
            epoch=epochs,
            index=indices,
        )
        # masked places first, in order; whole words may ask for a few more than there is room for
        at = np.argsort(-weights, axis=1, kind="stable")[:, : self.places]
        return {
            "tokens": inputs,
            "segment_ids": rows["segment_ids"],
            "positions": rows["positions"],
            "at": at.astype(np.int32),
            "targets": np.take_along_axis(targets, at, axis=1),
            "weights": np.take_along_axis(weights, at, axis=1),
        }

    @property
    def places(self) -> int:
        """Most tokens that are masked in a row."""
        return min(round(self.settings.rate * self.packing.capacity) + 1, self.packing.capacity)


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, MaskedLMConfig)
    if not isinstance(model, EncoderConfig):
        raise ValueError("task masked_lm needs an encoder: set model to an EncoderConfig")
    for role in ("mask", "cls", "sep", "pad"):
        if getattr(tokenizer, f"{role}_id") is None:
            raise ValueError(
                f"task masked_lm needs a tokenizer with a {role} token; this one has none"
            )
    lm = heads.MaskedLM(model, config.compute)

    def rows(split) -> MaskedRows:
        docs = documents.tokenize(split.texts, tokenizer)
        pieces = packing.split_long(docs, config.data.seq_len - 2)
        packed = packing.pack(pieces.lengths + 2, config.data.seq_len)
        return MaskedRows(pieces, packed, tokenizer, settings, config.seed)

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

    return Task(
        model=lm,
        train=rows(corpora.train),
        validation=rows(corpora.validation) if corpora.validation else None,
        loss=loss,
        summarize=summarize,
        output_share=settings.rate,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: preview(row, tokenizer),
    )


def preview(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> list[tuple[str, bool, str]]:
    """Each token of a row, whether it is to be restored, and what it was."""
    text = lambda i: tokenizer.decode([int(i)], skip_special=False)
    hidden = {int(i): t for i, t, w in zip(row["at"], row["targets"], row["weights"]) if w}
    return [
        (text(token), i in hidden, text(hidden[i]) if i in hidden else "")
        for i, token in enumerate(row["tokens"])
    ]
