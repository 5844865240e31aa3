"""Rows of fixed length cut from documents, accessed by index; nothing here is sequential or stateful.

Causal models read windows over the concatenated documents. Other models read rows of several whole pieces, each a text
or a pair of input and target. segment_ids number the documents or pieces of a row (1, 2, ...; 0 is padding). Documents
contain text only; control tokens are added here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile
from typing import Literal

import numpy as np

from jaxlm.data.documents import TokenDocuments
from jaxlm.data.ragged import Ragged, framed, owners_and_offsets, ranges


def num_windows(docs: TokenDocuments, seq_len: int, added: int = 0) -> int:
    """Number of windows that make every token but the first a target once, at least 1; the last may end in padding.

    `added` is the number of control tokens around each document.
    """
    return max(1, -(-(docs.num_tokens + added * len(docs) - 1) // seq_len))


def windows(
    docs: TokenDocuments,
    indices: np.ndarray,
    seq_len: int,
    offset: np.ndarray | int = 0,
    *,
    prefix_id: int | None = None,
    suffix_id: int | None = None,
) -> dict[str, np.ndarray]:
    """Row i reads seq_len + 1 tokens from i * seq_len + offset on, of the concatenated documents with control tokens.

    Args:
        docs: the corpus.
        indices: indices of windows [n].
        seq_len: T.
        offset: added to the starts of windows, a scalar or one per row [n].
        prefix_id: inserted before each document; None: no token.
        suffix_id: inserted after each document; None: no token.

    Returns:
        tokens, targets, segment_ids, positions [n, T] int32 and weights [n, T] float32. Positions restart at each
        document; weights are 0 where the target belongs to another document or is padding (after the last document).
    """
    added = int(prefix_id is not None) + int(suffix_id is not None)
    first = np.asarray(indices, np.int64) * seq_len + offset
    width = seq_len + 1
    here = first[:, None] + np.arange(width)
    real = here < docs.num_tokens + added * len(docs)

    # documents that end in the row or immediately after it, and their ends
    low = _count_ends(docs.ends, added, first, "right")
    high = _count_ends(docs.ends, added, first + width, "right")
    rows, which = ranges(low, high - low)
    stops = docs.ends[which] + added * (which + 1) - first[rows]
    inside = stops < width
    begins = np.zeros((len(first), width), bool)
    begins[:, 0] = True
    begins[rows[inside], stops[inside]] = True
    segments = np.where(real, np.cumsum(begins, axis=1, dtype=np.int32), 0)

    source = here
    if added:
        # every earlier document shifts a token by its control tokens
        source = here - added * (low[:, None] + segments - 1) - int(prefix_id is not None)
    ids = docs.gather(np.clip(source, 0, docs.num_tokens - 1))
    if prefix_id is not None:
        before = np.where(low > 0, docs.ends[low - 1] + added * low, 0)
        ids[first == before, 0] = prefix_id
        ids[rows[inside], stops[inside]] = prefix_id
    if suffix_id is not None:
        ids[rows, stops - 1] = suffix_id
    ids = np.where(real, ids, 0)

    steps = np.arange(seq_len, dtype=np.int32)
    positions = steps - np.maximum.accumulate(steps * begins[:, :-1], axis=1)
    same = (segments[:, :-1] == segments[:, 1:]) & real[:, 1:]
    return {
        "tokens": ids[:, :-1],
        "targets": ids[:, 1:],
        "segment_ids": segments[:, :-1],
        "positions": np.where(real[:, :-1], positions, 0),
        "weights": same.astype(np.float32),
    }


def _count_ends(
    ends: np.ndarray, added: int, stops: np.ndarray, side: Literal["left", "right"]
) -> np.ndarray:
    """`np.searchsorted` in the ends of documents with `added` more tokens each, without creating that array."""
    if not added:
        return np.searchsorted(ends, stops, side=side)
    low, high = np.zeros(len(stops), np.int64), np.full(len(stops), len(ends))
    while (open_ := low < high).any():
        middle = np.minimum((low + high) // 2, len(ends) - 1)
        end = ends[middle] + added * (middle + 1)
        behind = open_ & ((end <= stops) if side == "right" else (end < stops))
        low = np.where(behind, middle + 1, low)
        high = np.where(open_ & ~behind, middle, high)
    return low


def split_long(docs: TokenDocuments, longest: int) -> TokenDocuments:
    """Splits each document into pieces of `longest` tokens and a remainder; no piece is empty."""
    parts = [np.zeros(0, np.int64)]
    for first in range(0, len(docs), _GROUP):
        stops = docs.ends[first : first + _GROUP]
        starts = np.append(docs.ends[first - 1] if first else 0, stops[:-1])
        owners, part = ranges(np.ones(len(stops), np.int64), -(-(stops - starts) // longest))
        parts.append(np.minimum(starts[owners] + part * longest, stops[owners]))
    return TokenDocuments(docs.tokens, np.concatenate(parts))


@dataclasses.dataclass(frozen=True)
class Packing:
    """The assignment of pieces to rows."""

    # indices of the pieces, ordered by row [pieces]
    pieces: np.ndarray
    # exclusive end of each row in `pieces` [rows]
    ends: np.ndarray
    # number of pieces of each length [longest + 1]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def owners(self) -> np.ndarray | None:
        """The piece in each row [rows]; None: a row may have several."""
        return self.pieces if len(self.pieces) == len(self) else None

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Start of each row in `pieces` [n]."""
        indices = np.asarray(indices)
        return np.where(indices > 0, self.ends[indices - 1], 0)

    def efficiency(self, sizes: np.ndarray, capacity: int) -> float:
        """Fraction of the rows' positions that are not padding, for pieces of these sizes by length [longest + 1]."""
        return float(self.counts @ sizes) / max(1, len(self) * capacity)


def cut_and_pack(
    docs: TokenDocuments, sizes: np.ndarray, capacity: int
) -> tuple[TokenDocuments, Packing]:
    """Documents cut into pieces, and the assignment of pieces to rows.

    Packing takes seconds for a million pieces, so for a large corpus of shards the result is cached next to the shards,
    in files named by a hash of all inputs, and memory-mapped.

    Args:
        docs: the corpus.
        sizes: space that a piece of each length needs in a row, control tokens included [longest + 1]; longer documents
            are split.
        capacity: space in a row.
    """
    longest = len(sizes) - 1
    assert longest >= 1, "a row has no room for a token"
    if docs.apart:
        pieces = split_long(docs, longest)
        return pieces, one_a_row(pieces, sizes)
    if docs.folder is None or len(docs) + docs.num_tokens // longest < _MIN_CACHED_PIECES:
        pieces = split_long(docs, longest)
        return pieces, pack(pieces, sizes, capacity)
    name = hashlib.sha256(np.ascontiguousarray(docs.ends, np.int64).data)
    name.update(np.append(sizes, capacity).astype(np.int64).tobytes())
    folder = docs.folder / "packings" / name.hexdigest()[:32]
    if (cached := _read_cache(folder, docs)) is not None:
        return cached
    pieces = split_long(docs, longest)
    packing = pack(pieces, sizes, capacity)
    _write_cache(folder, {"piece_ends": pieces.ends, **vars(packing)})
    return _read_cache(folder, docs) or (pieces, packing)


_MIN_CACHED_PIECES = 1 << 18


def _read_cache(
    folder: pathlib.Path, docs: TokenDocuments
) -> tuple[TokenDocuments, Packing] | None:
    """The arrays written by `_write_cache`; None if missing, or if damaged, in which case the folder is removed."""
    if not folder.is_dir():
        return None
    # plain views: indexing a memmap object is slower
    read = lambda part: np.asarray(np.load(folder / f"{part}.npy", mmap_mode="r"))
    try:
        pieces = TokenDocuments(docs.tokens, read("piece_ends"))
        packing = Packing(*(read(field.name) for field in dataclasses.fields(Packing)))
        if len(pieces) == len(packing.pieces) and pieces.ends[-1] == docs.num_tokens:
            return pieces, packing
    except (OSError, ValueError, EOFError):  # NumPy raises the last two for truncated files
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write_cache(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a folder of arrays atomically; does nothing without write access or if another process was first."""
    try:
        folder.parent.mkdir(exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    except OSError:
        return
    try:
        for name, array in arrays.items():
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError:
        pass
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def one_a_row(pieces: TokenDocuments, sizes: np.ndarray) -> Packing:
    """Each piece in a row of its own; `sizes` as in `pack`."""
    order = np.arange(len(pieces))
    return Packing(order, order + 1, np.bincount(pieces.lengths, minlength=len(sizes)))


def pack(pieces: TokenDocuments, sizes: np.ndarray, capacity: int) -> Packing:
    """Best-fit decreasing: each piece, largest first, goes to the fullest row that still has room for it.

    Args:
        pieces: the pieces to pack.
        sizes: space that a piece of each length needs in a row [longest + 1], at most `capacity`.
        capacity: space in a row.
    """
    order, ends = np.empty(len(pieces), np.int64), [np.zeros(0, np.int64)]
    counts = np.zeros(len(sizes), np.int64)
    # in groups, to bound the memory for Python lists
    for start in range(0, len(pieces), _GROUP):
        stops = pieces.ends[start : start + _GROUP]
        lengths = np.diff(stops, prepend=pieces.ends[start - 1] if start else 0)
        assert (lengths < len(sizes)).all(), "split long pieces first"
        members, in_row = _pack_group(sizes[lengths], capacity)
        order[start : start + _GROUP] = members + start
        ends.append(start + np.cumsum(in_row))
        counts += np.bincount(lengths, minlength=len(sizes))
    return Packing(order, np.concatenate(ends), counts)


_GROUP = 1 << 17


def _pack_group(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """The pieces ordered by row, and the number of pieces in each row."""
    assert ((sizes > 0) & (sizes <= capacity)).all(), "a piece does not fit a row"
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if a row has room for exactly r more
    row_of = np.empty(len(sizes), np.int64)
    num_rows = 0
    order = np.argsort(-sizes, kind="stable")
    for piece, size in zip(order.tolist(), sizes[order].tolist()):
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, num_rows
            num_rows += 1
        row_of[piece] = row
        rest = room - size
        if rest:
            rows_with_room[rest].append(row)
            rooms |= 1 << rest
    return np.argsort(row_of, kind="stable"), np.bincount(row_of, minlength=num_rows)


# resolution of the sizes of pairs, finer than the number of tokens in typical rows
_PAIR_CAPACITY = 4096


def pair_sizes(
    inputs: np.ndarray, targets: np.ndarray, input_capacity: int, target_capacity: int
) -> tuple[np.ndarray, int]:
    """Sizes of pairs, chosen such that neither side of a row overflows, and the capacity of a row.

    The size of a pair is the fraction of a row that its larger side needs. Pairs of one objective have about the same
    proportions, so little space is lost compared with packing in two dimensions.

    Args:
        inputs: input tokens of pieces, at most `input_capacity` [n].
        targets: target tokens of the same pieces, at most `target_capacity` [n].
        input_capacity: input tokens in a row.
        target_capacity: target tokens in a row.
    """
    capacity = max(_PAIR_CAPACITY, input_capacity, target_capacity)
    sizes = np.maximum(
        -(-np.asarray(inputs, np.int64) * capacity // input_capacity),
        -(-np.asarray(targets, np.int64) * capacity // target_capacity),
    )
    return sizes, capacity


@dataclasses.dataclass(frozen=True)
class Members:
    """The pieces of some rows."""

    # index of each piece [p]
    pieces: np.ndarray
    # index of its row [p], ascending
    rows: np.ndarray
    # number of rows
    num_rows: int


def members(packing: Packing, indices: np.ndarray) -> Members:
    """The pieces of the rows `indices` [n]."""
    starts = packing.starts(indices)
    rows, offsets = ranges(starts, packing.ends[indices] - starts)
    return Members(packing.pieces[offsets], rows, len(indices))


def take(docs: TokenDocuments, pieces: np.ndarray) -> Ragged:
    """The tokens of these pieces, int32."""
    first = np.where(pieces > 0, docs.ends[pieces - 1], 0)
    lengths = docs.ends[pieces] - first
    source = ranges(first, lengths)[1]
    return Ragged(docs.gather(source), lengths)


def build_rows(
    sequences: Ragged, row: np.ndarray, num_rows: int, capacity: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Concatenates the sequences of each row.

    Args:
        sequences: the sequences, p of them.
        row: row index of each sequence [p], ascending.
        num_rows: n.
        capacity: tokens in a row; the sequences of a row must fit.
        pad_id: fills the rest of the row.

    Returns:
        tokens, segment_ids, positions [n, capacity] int32; positions restart at each sequence.
    """
    p, position = owners_and_offsets(sequences.lengths)
    counts = np.bincount(row, minlength=num_rows)
    leaders = (np.cumsum(counts) - counts)[row]
    column = sequences.starts - sequences.starts[leaders]
    assert len(row) == 0 or (column + sequences.lengths).max() <= capacity, "a row overflows"
    where = row[p], column[p] + position
    tokens = np.full((num_rows, capacity), pad_id, np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    segment = np.arange(len(row)) - leaders + 1
    tokens[where], segments[where], positions[where] = sequences.values, segment[p], position
    return {"tokens": tokens, "segment_ids": segments, "positions": positions}


def packed_rows(
    docs: TokenDocuments,
    packing: Packing,
    indices: np.ndarray,
    *,
    capacity: int,
    prefix_id: int | None,
    suffix_id: int | None,
    pad_id: int,
) -> dict[str, np.ndarray]:
    """Rows of whole pieces, each with `prefix_id` and `suffix_id` added where given; see `build_rows`.

    Args:
        docs: the pieces that were packed, with sizes that include the added tokens.
        packing: assignment of pieces to rows.
        indices: row indices [n].
        capacity: tokens in a row.
        prefix_id: inserted before each piece ([CLS]).
        suffix_id: inserted after each piece ([SEP]).
        pad_id: fills the rest of the row.
    """
    chosen = members(packing, indices)
    pieces = framed(take(docs, chosen.pieces), prefix_id, suffix_id)
    return build_rows(pieces, chosen.rows, chosen.num_rows, capacity, pad_id)
