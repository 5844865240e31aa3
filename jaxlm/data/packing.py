"""Rows of fixed length cut from documents, by index alone: nothing here reads in order or holds state.

Decoders read windows over documents joined end to end; encoders read rows that several whole documents share. In both,
segment_ids say which document a token belongs to (1, 2, ... within its row, 0: padding).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.data.documents import TokenDocuments


def num_windows(docs: TokenDocuments, seq_len: int) -> int:
    """Windows that make every token but the first a target once; the last one may end in padding. At least 1."""
    return max(1, -(-(docs.num_tokens - 1) // seq_len))


def windows(
    docs: TokenDocuments, indices: np.ndarray, seq_len: int, offset: np.ndarray | int = 0
) -> dict[str, np.ndarray]:
    """Row i covers tokens[i * seq_len + offset : + seq_len + 1], what lies behind the last document is padding.

    Args:
        docs: the corpus.
        indices: window numbers [n].
        seq_len: T.
        offset: added to where windows begin, one number or one for each row [n].

    Returns:
        tokens, targets, segment_ids, positions [n, T] int32 and weights [n, T] float32. Positions restart at each
        document; weights are 0 where the target belongs to another document or is padding.
    """
    first = np.asarray(indices, np.int64) * seq_len + offset
    here = first[:, None] + np.arange(seq_len + 1)
    real = here < docs.num_tokens
    flat = np.asarray(docs.tokens)  # a plain view: indexing a memmap object is slower
    ids = np.where(real, flat.take(np.minimum(here, docs.num_tokens - 1)), 0).astype(np.int32)

    begins = _document_begins(docs.ends, first, seq_len + 1)
    segments = np.where(real, np.cumsum(begins, axis=1, dtype=np.int32), 0)
    steps = np.arange(seq_len, dtype=np.int32)
    positions = steps - np.maximum.accumulate(steps * begins[:, :-1], axis=1)
    same = (segments[:, :-1] == segments[:, 1:]) & real[:, 1:]
    return {
        "tokens": ids[:, :-1],
        "targets": np.where(real[:, 1:], ids[:, 1:], 0),
        "segment_ids": segments[:, :-1],
        "positions": np.where(real[:, :-1], positions, 0),
        "weights": same.astype(np.float32),
    }


def _document_begins(ends: np.ndarray, first: np.ndarray, width: int) -> np.ndarray:
    """Whether a document, or its part in the window, begins at each place of rows of `width` from `first`."""
    begins = np.zeros((len(first), width), bool)
    begins[:, 0] = True
    low = np.searchsorted(ends, first, side="right")
    high = np.searchsorted(ends, first + width, side="left")
    rows, which = _ranges(low, high - low)
    begins[rows, ends[which] - first[rows]] = True
    return begins


def _ranges(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all ranges [start, start + count) end to end, each with the number of its range."""
    counts = np.maximum(counts, 0)
    owners = np.repeat(np.arange(len(starts)), counts)
    before = np.cumsum(counts) - counts
    return owners, np.arange(len(owners)) - before[owners] + starts[owners]


def split_long(docs: TokenDocuments, capacity: int) -> TokenDocuments:
    """The same tokens in documents of at most `capacity`: full pieces and a rest of each; no empty ones."""
    counts = -(-docs.lengths // capacity)
    owners, part = _ranges(np.ones(len(docs), np.int64), counts)
    ends = np.minimum(docs.starts[owners] + part * capacity, docs.ends[owners])
    return TokenDocuments(docs.tokens, ends)


@dataclasses.dataclass(frozen=True)
class Packing:
    """Which pieces share a row, and where in it they are."""

    # tokens that a row holds
    capacity: int
    # numbers of the pieces, row after row [pieces]
    pieces: np.ndarray
    # where in its row each of them begins [pieces]
    columns: np.ndarray
    # exclusive end of each row in `pieces` [rows]
    ends: np.ndarray
    # share of the rows' places that hold a token
    efficiency: float

    def __len__(self) -> int:
        return len(self.ends)


def pack(lengths: np.ndarray, capacity: int) -> Packing:
    """Best-fit decreasing: each piece, from the longest on, goes to the fullest row that still has room for it.

    Args:
        lengths: tokens of each piece, added control tokens included [pieces].
        capacity: tokens that a row holds; no piece may be longer.
    """
    lengths = np.asarray(lengths, np.int64)
    assert ((lengths > 0) & (lengths <= capacity)).all(), "split long pieces first"
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while there is a row with room for exactly r more
    row_of = np.empty(len(lengths), np.int64)
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist()):
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, num_rows
            num_rows += 1
        row_of[piece] = row
        rest = room - length
        if rest:
            rows_with_room[rest].append(row)
            rooms |= 1 << rest
    pieces = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of, minlength=num_rows)
    ends = np.cumsum(counts)
    before = np.cumsum(lengths[pieces]) - lengths[pieces]
    columns = before - np.repeat(before[ends - counts], counts)
    efficiency = float(lengths.sum()) / max(1, num_rows * capacity)
    return Packing(capacity, pieces, columns, ends, efficiency)


def packed_rows(
    docs: TokenDocuments,
    packing: Packing,
    indices: np.ndarray,
    *,
    prefix_id: int | None,
    suffix_id: int | None,
    pad_id: int,
) -> dict[str, np.ndarray]:
    """Rows of whole pieces, each between `prefix_id` and `suffix_id` where these are given.

    Args:
        docs: the pieces that were packed (`split_long`); their lengths plus the added tokens went into `pack`.
        packing: which piece is where.
        indices: row numbers [n].
        prefix_id: put before each piece ([CLS]).
        suffix_id: put after each piece ([SEP]).
        pad_id: fills the rest of the row.

    Returns:
        tokens, segment_ids, positions [n, capacity] int32; positions restart at each piece.
    """
    row_starts = np.concatenate([np.zeros(1, np.int64), packing.ends])
    starts, counts = row_starts[indices], packing.ends[indices] - row_starts[indices]
    # the pieces p of all rows: the row, the number within it, first token, tokens with those that are added
    row, place = _ranges(starts, counts)
    number, pieces = place - starts[row], packing.pieces[place]
    first = np.where(pieces > 0, docs.ends[pieces - 1], 0)
    added = int(prefix_id is not None) + int(suffix_id is not None)
    lengths = docs.ends[pieces] - first + added
    # the tokens of all pieces: the piece, the place within it
    p, position = _ranges(np.zeros_like(lengths), lengths)
    source = first[p] + position - int(prefix_id is not None)
    ids = np.asarray(docs.tokens).take(source, mode="clip").astype(np.int32)
    if prefix_id is not None:
        ids[position == 0] = prefix_id
    if suffix_id is not None:
        ids[position == lengths[p] - 1] = suffix_id

    shape = (len(indices), packing.capacity)
    where = (row[p], packing.columns[place][p] + position)
    tokens = np.full(shape, pad_id, np.int32)
    segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    tokens[where], segments[where], positions[where] = ids, number[p] + 1, position
    return {"tokens": tokens, "segment_ids": segments, "positions": positions}
