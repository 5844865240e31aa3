"""Rows of fixed length: packed pieces of documents (text, or input and target), or precomputed arrays.

An objective corrupts one piece at a time. Its random key depends only on the seed, the epoch and the piece's index.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.data import counter, packing
from jaxlm.data.documents import TokenDocuments, TwoTokenizations
from jaxlm.data.loader import Batch, times
from jaxlm.data.packing import Members, Packing
from jaxlm.data.ragged import Ragged, framed


@dataclasses.dataclass(frozen=True)
class TextRows:
    """Pieces of documents packed into rows, each surrounded by control tokens."""

    # documents split into pieces
    pieces: TokenDocuments
    packing: Packing
    # tokens in a row
    capacity: int
    pad_id: int
    prefix_id: int | None
    suffix_id: int | None
    # fraction of the positions that hold a token
    efficiency: float
    # upper bound on the pieces in a row; independent of the documents, so that all sources have rows of one shape
    most_pieces: int
    # the document of each piece
    document_of: np.ndarray

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
        """Packs the documents; `extra` is the number of tokens that a corruption may add to a piece.

        Raises:
            ValueError: a row is too short for control tokens and text.
        """
        added = int(prefix_id is not None) + int(suffix_id is not None) + extra
        if capacity <= added:
            raise ValueError(
                f"data.seq_len={capacity}: no room for text beside {added} control tokens; increase it"
            )
        sizes = np.arange(added, capacity + 1)
        pieces, packed = packing.cut_and_pack(docs, sizes, capacity)
        efficiency = packed.efficiency(sizes, capacity)
        most = capacity // (1 + added)
        owners = docs.owners(pieces)
        return cls(pieces, packed, capacity, pad_id, prefix_id, suffix_id, efficiency, most, owners)

    def __len__(self) -> int:
        return len(self.packing)

    def owners(self) -> np.ndarray | None:
        """The document that each row is of [rows]; None: rows may be of several."""
        pieces = self.packing.owners()
        return None if pieces is None else self.document_of[pieces]

    def describe(self, examples: int) -> str:
        """One line: number, length and fill of the rows, and how often `examples` read each."""
        size = f"{len(self):,} rows of {self.capacity} tokens, {self.efficiency:.1%} full"
        return f"{size}; {times(examples, len(self))}"

    def members(self, indices: np.ndarray) -> Members:
        """The pieces of these rows [n]."""
        return packing.members(self.packing, indices)

    def take(self, members: Members) -> Ragged:
        """Their text, without control tokens."""
        return packing.take(self.pieces, members.pieces)

    def build_rows(self, texts: Ragged, members: Members) -> dict[str, np.ndarray]:
        """Adds control tokens to the texts and packs them: tokens, segment_ids, positions [n, capacity]."""
        sequences = framed(texts, self.prefix_id, self.suffix_id)
        return packing.build_rows(
            sequences, members.rows, members.num_rows, self.capacity, self.pad_id
        )


@dataclasses.dataclass(frozen=True)
class PairRows:
    """Pieces of documents with an input and a target each, packed into rows on both sides."""

    pieces: TokenDocuments
    packing: Packing
    input_capacity: int
    target_capacity: int
    pad_id: int
    # the decoder's first token
    start_id: int
    # fraction of the positions that hold a token, of inputs and of targets
    efficiency: tuple[float, float]
    # the pieces in the tokens of the input, if these are others, and what fills up its rows
    read: TokenDocuments | None = None
    read_pad_id: int = 0
    # the document of each piece; None: piece i is document i
    document_of: np.ndarray | None = None

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

        `inputs` and `targets` [longest + 1] are the (largest) numbers of input and target tokens of a piece of each
        length, control tokens included.
        """
        sizes = packing.pair_sizes(inputs, targets, input_capacity, target_capacity)
        pieces, packed = packing.cut_and_pack(docs, *sizes)
        efficiency = (
            packed.efficiency(inputs, input_capacity),
            packed.efficiency(targets, target_capacity),
        )
        shape = input_capacity, target_capacity, pad_id, start_id, efficiency
        return cls(pieces, packed, *shape, document_of=docs.owners(pieces))

    @classmethod
    def of_two(
        cls,
        docs: TwoTokenizations,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        input_capacity: int,
        target_capacity: int,
        pad_ids: tuple[int, int],
        start_id: int,
    ) -> PairRows:
        """Packs whole documents by the actual numbers of tokens on both sides.

        `inputs` and `targets` [documents] are the numbers of input and target tokens of each, control tokens included;
        documents that are empty on a side are left out. `pad_ids` are those of inputs and targets.
        """
        kept = np.flatnonzero((docs.read.lengths > 0) & (docs.written.lengths > 0))
        inputs, targets = np.asarray(inputs)[kept], np.asarray(targets)[kept]
        sizes, capacity = packing.pair_sizes(inputs, targets, input_capacity, target_capacity)
        # a document that is as long as the space it needs
        spaces = TokenDocuments(np.zeros(0, np.uint16), np.cumsum(sizes))
        packed = packing.pack(spaces, np.arange(capacity + 1), capacity)
        rows = max(1, len(packed))
        efficiency = (
            float(inputs.sum()) / (rows * input_capacity),
            float(targets.sum()) / (rows * target_capacity),
        )
        return cls(
            docs.written,
            dataclasses.replace(packed, pieces=kept[packed.pieces]),
            input_capacity,
            target_capacity,
            pad_ids[1],
            start_id,
            efficiency,
            docs.read,
            pad_ids[0],
        )

    def __len__(self) -> int:
        return len(self.packing)

    def owners(self) -> np.ndarray | None:
        """The document that each row is of [rows]; None: rows may be of several."""
        pieces = self.packing.owners()
        return pieces if pieces is None or self.document_of is None else self.document_of[pieces]

    def describe(self, examples: int) -> str:
        """One line: number, lengths and fill of the rows, and how often `examples` read each."""
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

    def take_read(self, members: Members) -> Ragged:
        """Their text in the tokens of the input, without control tokens."""
        return packing.take(self.pieces if self.read is None else self.read, members.pieces)

    def build_rows(
        self, inputs: Ragged, targets: Ragged, members: Members
    ) -> dict[str, np.ndarray]:
        """Rows of an encoder-decoder; the decoder reads each target shifted right by one position.

        Returns:
            tokens, segment_ids, positions [n, S]; decoder_tokens, decoder_segment_ids, decoder_positions, targets,
            weights [n, T].
        """
        left, right = (
            packing.build_rows(side, members.rows, members.num_rows, capacity, pad_id)
            for side, capacity, pad_id in (
                (
                    inputs,
                    self.input_capacity,
                    self.pad_id if self.read is None else self.read_pad_id,
                ),
                (targets, self.target_capacity, self.pad_id),
            )
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


@dataclasses.dataclass(frozen=True)
class Keys:
    """Random keys of a batch of rows; a row's key does not depend on its batch or process."""

    seed: int
    epochs: np.ndarray
    indices: np.ndarray
    members: Members

    @property
    def rows(self) -> np.ndarray:
        """A key for each row [n] uint64."""
        return counter.bits(self.seed, self.epochs, self.indices)

    @property
    def pieces(self) -> np.ndarray:
        """A key for each piece [p] uint64."""
        return counter.bits(
            self.seed, np.asarray(self.epochs)[self.members.rows], self.members.pieces
        )


# (packed rows, their members, keys) -> batch; must be picklable for worker processes, so a module-level function or a
# functools.partial of one
Corrupt = Callable[[Any, Members, Keys], Batch]


@dataclasses.dataclass(frozen=True)
class CorruptedRows:
    """Packed rows that are corrupted differently in every epoch."""

    packed: TextRows | PairRows
    corrupt: Corrupt
    seed: int

    def __len__(self) -> int:
        return len(self.packed)

    def owners(self) -> np.ndarray | None:
        """The document that each row is of [rows]; None: rows may be of several."""
        return None if getattr(self.corrupt, "mixes_documents", False) else self.packed.owners()

    def describe(self, examples: int) -> str:
        """One line: how many rows, how long, how full, and how often `examples` read each."""
        return self.packed.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """These rows, corrupted."""
        members = self.packed.members(indices)
        return self.corrupt(self.packed, members, Keys(self.seed, epochs, indices, members))


@dataclasses.dataclass(frozen=True)
class ArrayRows:
    """Precomputed rows, the same in every epoch."""

    # arrays [n, ...]; segment_ids [n, ..., T], if present, mark padding with 0
    arrays: dict[str, np.ndarray]
    # what else people should know of them, such as how many texts were cut
    remark: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def owners(self) -> np.ndarray:
        """The record that each row is of [rows]."""
        return self.arrays.get("record", np.arange(len(self)))

    def describe(self, examples: int) -> str:
        """One line: how many rows, how long, how full, the remark, and how often `examples` read each."""
        size = f"{len(self):,} rows"
        if "segment_ids" in self.arrays:
            segments = self.arrays["segment_ids"]
            size += f" of {segments.shape[-1]} tokens, {(segments > 0).mean():.1%} full"
        return "; ".join(filter(None, [size, self.remark, times(examples, len(self))]))

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """These rows of every array."""
        return {name: x[indices] for name, x in self.arrays.items()}


def spread(values: np.ndarray, members: Members, segment_ids: np.ndarray) -> np.ndarray:
    """Repeats the value of each piece [p] at all of its tokens [n, T]; 0 on padding."""
    counts = np.bincount(members.rows, minlength=members.num_rows)
    leaders = np.cumsum(counts) - counts
    piece = np.maximum(leaders[:, None] + segment_ids - 1, 0)
    return np.where(segment_ids > 0, values[np.minimum(piece, len(values) - 1)], 0)


def next_tokens(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the targets of a causal model: targets [n, T] and weights [n, T], which are 0 at the ends of texts."""
    follows = np.zeros_like(rows["tokens"])
    follows[:, :-1] = rows["tokens"][:, 1:]
    same = np.zeros(follows.shape, np.float32)
    segments = rows["segment_ids"]
    same[:, :-1] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return {**rows, "targets": np.where(same > 0, follows, 0), "weights": same}
