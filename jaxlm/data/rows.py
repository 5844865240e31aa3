"""Rows that whole pieces of documents share, for everything but causal windows: one side, or input and target.

A piece is what an objective corrupts; its random key is made from seed, epoch and the number of the piece.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.data import counter, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import times
from jaxlm.data.packing import Members, Packing
from jaxlm.data.ragged import Ragged, framed


@dataclasses.dataclass(frozen=True)
class TextRows:
    """Pieces of documents, several in a row, each between its control tokens."""

    # documents cut to the length of a piece
    pieces: TokenDocuments
    packing: Packing
    # tokens in a row
    capacity: int
    pad_id: int
    prefix_id: int | None
    suffix_id: int | None
    # share of the places that hold a token
    efficiency: float
    # how many pieces can stand in a row, whatever the documents: rows of all sources have the same shape
    most_pieces: int

    @classmethod
    def of(
        cls,
        docs: TokenDocuments,
        capacity: int,
        *,
        pad_id: int,
        prefix_id: int | None,
        suffix_id: int | None,
        extra: int = 0,
    ) -> TextRows:
        """Packs the documents; `extra` is room for so many more tokens that a corruption may add to a piece.

        Raises:
            ValueError: a row has no room for a text beside its control tokens.
        """
        added = int(prefix_id is not None) + int(suffix_id is not None) + extra
        if capacity <= added:
            raise ValueError(
                f"data.seq_len={capacity}: rows hold no text, as {added} control tokens stand around each: raise it"
            )
        sizes = np.arange(added, capacity + 1)
        pieces, packed = packing.cut_and_pack(docs, sizes, capacity)
        efficiency = packed.efficiency(sizes, capacity)
        most = capacity // (1 + added)
        return cls(pieces, packed, capacity, pad_id, prefix_id, suffix_id, efficiency, most)

    def __len__(self) -> int:
        return len(self.packing)

    def describe(self, examples: int) -> str:
        """One line for people."""
        size = f"{len(self):,} rows of {self.capacity} tokens, {self.efficiency:.1%} full"
        return f"{size}; {times(examples, len(self))}"

    def members(self, indices: np.ndarray) -> Members:
        """The pieces of these rows [n]."""
        return packing.members(self.packing, indices)

    def take(self, members: Members) -> Ragged:
        """Their text, without control tokens."""
        return packing.take(self.pieces, members.pieces)

    def lay(self, texts: Ragged, members: Members) -> dict[str, np.ndarray]:
        """Their texts between control tokens, in rows: tokens, segment_ids, positions [n, capacity]."""
        sequences = framed(texts, self.prefix_id, self.suffix_id)
        return packing.lay(sequences, members.rows, members.num_rows, self.capacity, self.pad_id)


@dataclasses.dataclass(frozen=True)
class PairRows:
    """Pieces of documents with an input and a target each, several in a row on both sides."""

    pieces: TokenDocuments
    packing: Packing
    input_capacity: int
    target_capacity: int
    pad_id: int
    # the decoder's first token
    start_id: int
    # share of the places that hold a token, of inputs and of targets
    efficiency: tuple[float, float]

    @classmethod
    def of(
        cls,
        docs: TokenDocuments,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        input_capacity: int,
        target_capacity: int,
        pad_id: int,
        start_id: int,
    ) -> PairRows:
        """Cuts and packs the documents.

        `inputs` and `targets` [longest + 1] are the tokens that a piece of each length has (at most) on both sides,
        control tokens included.
        """
        sizes = packing.pair_sizes(inputs, targets, input_capacity, target_capacity)
        pieces, packed = packing.cut_and_pack(docs, *sizes)
        efficiency = (
            packed.efficiency(inputs, input_capacity),
            packed.efficiency(targets, target_capacity),
        )
        return cls(pieces, packed, input_capacity, target_capacity, pad_id, start_id, efficiency)

    def __len__(self) -> int:
        return len(self.packing)

    def describe(self, examples: int) -> str:
        """One line for people."""
        i, t = self.efficiency
        return (
            f"{len(self):,} rows of {self.input_capacity} input tokens, {i:.1%} full, and "
            f"{self.target_capacity} target tokens, {t:.1%} full; {times(examples, len(self))}"
        )

    def members(self, indices: np.ndarray) -> Members:
        """The pieces of these rows [n]."""
        return packing.members(self.packing, indices)

    def take(self, members: Members) -> Ragged:
        """Their text, without control tokens."""
        return packing.take(self.pieces, members.pieces)

    def lay(self, inputs: Ragged, targets: Ragged, members: Members) -> dict[str, np.ndarray]:
        """Rows of an encoder-decoder, whose decoder reads each target one place later than it predicts it.

        Returns:
            tokens, segment_ids, positions [n, S]; decoder_tokens, decoder_segment_ids, decoder_positions, targets,
            weights [n, T].
        """
        left, right = (
            packing.lay(side, members.rows, members.num_rows, capacity, self.pad_id)
            for side, capacity in ((inputs, self.input_capacity), (targets, self.target_capacity))
        )
        read = np.roll(right["tokens"], 1, axis=1)
        read = np.where(right["positions"] == 0, self.start_id, read)
        real = right["segment_ids"] > 0
        return {
            **left,
            "decoder_tokens": np.where(real, read, self.pad_id),
            "decoder_segment_ids": right["segment_ids"],
            "decoder_positions": right["positions"],
            "targets": right["tokens"],
            "weights": real.astype(np.float32),
        }


def piece_keys(seed: int, epochs: np.ndarray, members: Members) -> np.ndarray:
    """The random key of each piece [p] uint64, from its number and the epoch of its row."""
    return counter.bits(seed, np.asarray(epochs)[members.rows], members.pieces)


def spread(values: np.ndarray, members: Members, segment_ids: np.ndarray) -> np.ndarray:
    """A number for each piece [p], at all of its tokens [n, T]; 0 on padding."""
    counts = np.bincount(members.rows, minlength=members.num_rows)
    leaders = np.cumsum(counts) - counts
    piece = np.maximum(leaders[:, None] + segment_ids - 1, 0)
    return np.where(segment_ids > 0, values[np.minimum(piece, len(values) - 1)], 0)


def next_tokens(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows with what a causal model is to predict: targets [n, T] and weights [n, T], 0 at the ends of texts."""
    follows = np.zeros_like(rows["tokens"])
    follows[:, :-1] = rows["tokens"][:, 1:]
    same = np.zeros(follows.shape, np.float32)
    segments = rows["segment_ids"]
    same[:, :-1] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return {**rows, "targets": np.where(same > 0, follows, 0), "weights": same}
