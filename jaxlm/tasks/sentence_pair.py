"""Masked language modelling of texts in two parts, and whether the second part follows the first (BERT, ALBERT)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import EncoderConfig, ModelConfig, RunConfig, SentencePairConfig
from jaxlm.data import corruption, counter, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.ragged import Ragged, insert, ranges
from jaxlm.data.rows import TextRows, piece_keys, spread
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import pretraining
from jaxlm.ops import losses
from jaxlm.tasks import masked_lm, task
from jaxlm.tasks.task import Corpora, Piece, Sums, Task

load = task.load_documents
added_tokens = task.no_tokens


@dataclasses.dataclass(frozen=True)
class PairedRows:
    """Rows of texts in two parts, [CLS] a [SEP] b [SEP] each, with tokens masked."""

    text: TextRows
    # ends of the documents that the pieces were cut from
    document_ends: np.ndarray
    tokenizer: Tokenizer
    settings: SentencePairConfig
    seed: int

    def __len__(self) -> int:
        return len(self.text)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.text.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """Those of `masked_lm.MaskedRows`, and token_types [n, T]; pair_at, pair_labels, pair_weights [n, M]: where the
        [CLS] of each pair is, 1 if its parts follow each other, and 1 where there is a pair."""
        t, s = self.tokenizer, self.settings
        assert t.sep_id is not None
        members = self.text.members(indices)
        texts = self.text.take(members)
        keys = piece_keys(self.seed, epochs, members)
        pairs, first, labels = corruption.sentence_pairs(
            texts,
            keys=keys,
            sentence_ends=t.sentence_ends(texts.values),
            begins=self._begins(members.pieces),
            other=self._others(members, keys) if s.kind == "next" else None,
        )
        whole = np.flatnonzero(labels >= 0)
        marked = insert(pairs, (pairs.starts + first)[whole], t.sep_id, whole)
        rows = self.text.lay(marked, members)
        # [CLS], first part and [SEP] are of type 0, and all of a text that is no pair
        lead = np.where(labels >= 0, first + 2, self.text.capacity)
        types = rows["positions"] >= spread(lead, members, rows["segment_ids"])
        masked = masked_lm.masked(
            rows["tokens"],
            masked_lm.maskable(rows, t),
            counter.bits(self.seed, epochs, indices),
            t,
            rate=s.rate,
            mask_share=s.mask_share,
            random_share=s.random_share,
        )
        return {
            **rows,
            **masked,
            "token_types": (types & (rows["segment_ids"] > 0)).astype(np.int32),
            **self._pairs(rows, members, labels),
        }

    def _others(self, members: Members, keys: np.ndarray) -> Ragged:
        """A random piece of another document for each piece, from its first sentence on."""
        ends = self.text.pieces.ends
        document = np.searchsorted(self.document_ends, ends[members.pieces], side="left")
        stop = self.document_ends[document]
        start = np.where(document > 0, self.document_ends[document - 1], 0)
        low, high = (np.searchsorted(ends, edge, side="right") for edge in (start, stop))
        chosen = corruption.sample_outside(low, high, len(ends), keys)
        texts = packing.take(self.text.pieces, chosen)
        first = corruption.sentence_starts(
            texts.lengths, self.tokenizer.sentence_ends(texts.values), self._begins(chosen)
        )
        rest = texts.lengths - first
        return Ragged(texts.values[ranges(texts.starts + first, rest)[1]], rest)

    def _begins(self, pieces: np.ndarray) -> np.ndarray:
        """Whether these pieces begin where a sentence does, which is also where a document does [p]."""
        ends = self.text.pieces.ends
        first = np.where(pieces > 0, ends[pieces - 1], 0)
        before = self.text.pieces.gather(np.maximum(first - 1, 0))
        document = np.searchsorted(self.document_ends, first)
        here = self.document_ends[np.minimum(document, len(self.document_ends) - 1)] == first
        return (first == 0) | here | self.tokenizer.sentence_ends(before)

    def _pairs(self, rows: dict, members: Members, labels: np.ndarray) -> dict[str, np.ndarray]:
        shape = (members.num_rows, self.text.most_pieces)
        at, of, weights = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape)
        counts = np.bincount(members.rows, minlength=members.num_rows)
        place = members.rows, np.arange(len(labels)) - (np.cumsum(counts) - counts)[members.rows]
        at[place] = np.nonzero((rows["segment_ids"] > 0) & (rows["positions"] == 0))[1]
        of[place], weights[place] = np.maximum(labels, 0), labels >= 0
        return {"pair_at": at, "pair_labels": of, "pair_weights": weights.astype(np.float32)}


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, SentencePairConfig)
    backbone = task.need_model(model, EncoderConfig, "sentence_pair")
    lm = pretraining.SentencePairLM(backbone, config.compute)

    def rows(docs: TokenDocuments, training: bool) -> PairedRows:
        text = masked_lm.encoder_rows(config, tokenizer, docs, "sentence_pair", extra=1)
        ends = np.unique(docs.ends)
        if settings.kind == "next" and len(ends) < 2 + int(ends[0] == 0):
            raise ValueError(
                "task.kind=next needs two documents at least: take task.kind=order, or set data.text_unit if the text "
                "is one file"
            )
        return PairedRows(text, docs.ends, tokenizer, settings, config.seed)

    train, validation = task.datasets(config, corpora, tokenizer, rows)

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        states: Any = lm.apply(
            {"params": params},
            batch["tokens"],
            batch["at"],
            batch["pair_at"],
            segment_ids=batch["segment_ids"],
            positions=batch["positions"],
            token_types=batch["token_types"],
            key=key,
            method="hidden",
        )
        hidden, logits = states
        lm_params = {"backbone": params["backbone"], "head": params["head"]["lm"]}
        restored, sums = masked_lm.restoring_loss(hidden, lm_params, batch)
        # rows that fill up the last batch of an evaluation have no weights
        counts = batch["pair_weights"] * (batch["weights"] > 0).any(axis=1, keepdims=True)
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        told = losses.class_cross_entropy(flat(logits), flat(batch["pair_labels"]), flat(counts))
        right = (jnp.argmax(logits, -1) == batch["pair_labels"]) * counts
        # the two mean losses count the same
        total = restored + told * sums["weight"] / jnp.maximum(counts.sum(), 1)
        return total, {
            "loss": total,
            "weight": sums["weight"],
            "masked_loss": restored,
            "masked_correct": sums["correct"],
            "pair_loss": told,
            "pair_correct": right.sum(),
            "pairs": counts.sum(),
        }

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


def summarize(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """The sum of both mean losses; loss and accuracy of masked tokens and of pairs."""
    weight, pairs = sums["weight"], max(float(sums["pairs"]), 1.0)
    return {
        "loss": float(sums["loss"] / weight),
        "masked_loss": float(sums["masked_loss"] / weight),
        "masked_accuracy": float(sums["masked_correct"] / weight),
        "pair_loss": float(sums["pair_loss"]) / pairs,
        "pair_accuracy": float(sums["pair_correct"]) / pairs,
    }


def preview(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> list[Piece]:
    """That of masked language modelling, with the answer of each pair behind its text."""
    pieces = masked_lm.preview(row, tokenizer)
    answers = {
        int(at): "follows" if label else "does not follow"
        for at, label, weight in zip(row["pair_at"], row["pair_labels"], row["pair_weights"])
        if weight
    }
    return [
        piece._replace(text=f"{piece.text}({answers[i]})") if i in answers else piece
        for i, piece in enumerate(pieces)
    ]
