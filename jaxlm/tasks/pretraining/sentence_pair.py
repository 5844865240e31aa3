"""Masked language modeling of text pairs, and prediction whether the second text follows the first (BERT, ALBERT)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.data import corruption, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.ragged import Ragged, insert, ranges
from jaxlm.data.rows import CorruptedRows, Keys, TextRows, spread
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import pretraining
from jaxlm.ops import losses
from jaxlm.tasks.pretraining.masking import (
    EncoderTask,
    MaskingConfig,
    mask,
    maskable,
)
from jaxlm.tasks.pretraining.token_loss import token_loss
from jaxlm.tasks.task import Context, Loss, Piece, Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePairConfig(MaskingConfig):
    """Masked language modeling of text pairs, and prediction whether the second text follows the first."""

    # order: half of the pairs are swapped (ALBERT, Lan et al. 2020, 1909.11942); next: half of the second parts are
    # from another document (BERT, Devlin et al. 2018, section 3.1); texts of a single sentence are not paired
    kind: Literal["order", "next"] = "order"


class SentencePair(EncoderTask):
    """See `SentencePairConfig`."""

    Config = SentencePairConfig
    name = "sentence_pair"

    def make_model(self) -> pretraining.SentencePairLM:
        """An encoder with the head of a masked language model and one for pairs."""
        return pretraining.SentencePairLM(self.backbone, self.config.compute)

    def export_params(self, params: Any) -> Any:
        """The parameters with the classes of pairs in the order of transformers, whose first is for texts in order.

        Without a head, which not all architectures have there, they are unchanged.
        """
        if "head" not in params:
            return params
        head = params["head"]
        return params | {
            "head": head | {"pair": jax.tree.map(lambda x: x[..., ::-1], head["pair"])}
        }

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Rows of texts in two parts, [CLS] a [SEP] b [SEP] each, with tokens masked."""
        ends = np.unique(data.ends)
        if self.settings.kind == "next" and len(ends) < 2 + int(ends[0] == 0):
            raise ValueError(
                "task.kind=next needs at least two documents: use task.kind=order, or set data.text_unit if the text "
                "is a single file"
            )
        corrupt = PairCorruption(data.ends, self.tokenizer, self.settings)
        return CorruptedRows(self.text_rows(data, extra=1), corrupt, self.config.seed)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """The sum of two mean losses: of the masked tokens, and of the pairs."""
        states: Any = self.model.apply(
            {"params": params},
            batch["tokens"],
            batch["at"],
            batch["pair_at"],
            segment_ids=batch["segment_ids"],
            positions=batch["positions"],
            token_types=batch["token_types"],
            key=context.dropout_key,
            method="hidden",
        )
        hidden, logits = states
        lm_params = {"backbone": params["backbone"], "head": params["head"]["lm"]}
        masked = token_loss(hidden, lm_params, batch)
        weights = batch["pair_weights"] * batch["valid"][:, None]
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        pairs = losses.class_cross_entropy(flat(logits), flat(batch["pair_labels"]), flat(weights))
        correct = (jnp.argmax(logits, -1) == batch["pair_labels"]) * weights
        count = weights.sum()
        means = {
            "masked_loss": (masked.total, masked.weight),
            "masked_accuracy": masked.means["accuracy"],
        }
        sums = {"pair_loss": pairs, "pair_accuracy": correct.sum(), "pairs": count}
        total = masked.total + pairs * masked.weight / jnp.maximum(count, 1)
        return Loss(total, masked.weight, means, sums)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss and accuracy of masked tokens and of pairs; 0 if there are no pairs."""
        pairs = max(float(sums["pairs"]), 1.0)
        return means | {name: float(sums[name]) / pairs for name in ("pair_loss", "pair_accuracy")}

    def preview(self, row: Batch) -> list[Piece]:
        """The preview of masked language modeling, with the label of each pair after its first token."""
        answers = {
            int(at): "follows" if label else "does not follow"
            for at, label, weight in zip(row["pair_at"], row["pair_labels"], row["pair_weights"])
            if weight
        }
        return [
            piece._replace(text=f"{piece.text}({answers[i]})") if i in answers else piece
            for i, piece in enumerate(super().preview(row))
        ]


@dataclasses.dataclass(frozen=True)
class PairCorruption:
    """Cuts each piece of a row into a pair at the end of a sentence, swaps or replaces parts, and masks tokens."""

    # ends of the documents that the pieces were cut from
    document_ends: np.ndarray
    tokenizer: Tokenizer
    settings: SentencePairConfig

    @property
    def mixes_documents(self) -> bool:
        """Whether a row has text of other documents."""
        return self.settings.kind == "next"

    def __call__(self, packed: TextRows, members: Members, keys: Keys) -> Batch:
        """Rows as in `masking.mask_rows`, and token_types [n, T]; pair_at, pair_labels, pair_weights [n, M]: the
        positions of the pairs' [CLS], 1 if the second part follows the first, and 1 for pairs, 0 for padding."""
        t, s = self.tokenizer, self.settings
        assert t.sep_id is not None
        texts = packed.take(members)
        piece_keys = keys.pieces
        other = self._others(packed, members, piece_keys) if s.kind == "next" else None
        pairs, first, labels = corruption.sentence_pairs(
            texts,
            keys=piece_keys,
            sentence_ends=t.sentence_ends(texts.values),
            begins=self._begins_sentence(packed, members.pieces),
            other=other,
        )
        whole = np.flatnonzero(labels >= 0)
        marked = insert(pairs, (pairs.starts + first)[whole], t.sep_id, whole)
        rows = packed.build_rows(marked, members)
        # [CLS], first part and [SEP] are of type 0, and so are texts that are not pairs
        lead = np.where(labels >= 0, first + 2, packed.capacity)
        types = rows["positions"] >= spread(lead, members, rows["segment_ids"])
        masked = mask(rows["tokens"], maskable(rows, t), keys.rows, t, **s.options)
        return {
            **rows,
            **masked,
            "token_types": (types & (rows["segment_ids"] > 0)).astype(np.int32),
            **_pair_arrays(packed, rows, members, labels),
        }

    def _others(self, packed: TextRows, members: Members, keys: np.ndarray) -> Ragged:
        """A random piece of another document for each piece, from its first sentence on."""
        ends = packed.pieces.ends
        document = np.searchsorted(self.document_ends, ends[members.pieces], side="left")
        stop = self.document_ends[document]
        start = np.where(document > 0, self.document_ends[document - 1], 0)
        low, high = (np.searchsorted(ends, edge, side="right") for edge in (start, stop))
        chosen = corruption.sample_outside(low, high, len(ends), keys)
        texts = packing.take(packed.pieces, chosen)
        first = corruption.sentence_starts(
            texts.lengths,
            self.tokenizer.sentence_ends(texts.values),
            self._begins_sentence(packed, chosen),
        )
        rest = texts.lengths - first
        return Ragged(texts.values[ranges(texts.starts + first, rest)[1]], rest)

    def _begins_sentence(self, packed: TextRows, pieces: np.ndarray) -> np.ndarray:
        """Whether these pieces [p] begin at the start of a sentence or of a document, bool [p]."""
        ends = packed.pieces.ends
        first = np.where(pieces > 0, ends[pieces - 1], 0)
        before = packed.pieces.gather(np.maximum(first[:, None] - [2, 1], 0))
        document = np.searchsorted(self.document_ends, first)
        here = self.document_ends[np.minimum(document, len(self.document_ends) - 1)] == first
        return (first == 0) | here | self.tokenizer.sentence_ends(before)[:, -1]


def _pair_arrays(packed: TextRows, rows: Batch, members: Members, labels: np.ndarray) -> Batch:
    shape = (members.num_rows, packed.most_pieces)
    at, labels_at, weights = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape)
    counts = np.bincount(members.rows, minlength=members.num_rows)
    slot = members.rows, np.arange(len(labels)) - (np.cumsum(counts) - counts)[members.rows]
    at[slot] = np.nonzero((rows["segment_ids"] > 0) & (rows["positions"] == 0))[1]
    labels_at[slot], weights[slot] = np.maximum(labels, 0), labels >= 0
    return {"pair_at": at, "pair_labels": labels_at, "pair_weights": weights.astype(np.float32)}
