"""Rows of fixed length cut from documents, by index alone: nothing here reads in order or holds state.

Causal models read windows over documents joined end to end; everything else reads rows that several whole pieces
share, of one text or of a pair of input and target. In all of them segment_ids say which document a token belongs to
(1, 2, ... within its row, 0: padding). Documents hold text only; control tokens are put around it here.
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
    """Windows that make every token but the first a target once; the last one may end in padding. At least 1.

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
    """Row i has tokens [i * seq_len + offset : + seq_len + 1] of the concatenated documents with control tokens.

    Args:
        docs: the corpus.
        indices: indices of windows [n].
        seq_len: T.
        offset: added to the starts of windows, one number or one for each row [n].
        prefix_id: inserted before each document; None: no token.
        suffix_id: inserted after each document; None: no token.

    Returns:
        tokens, targets, segment_ids, positions [n, T] int32 and weights [n, T] float32. Positions restart at each
        document; weights are 0 where the target belongs to another document or is padding (behind the last document).
    """
    added = int(prefix_id is not None) + int(suffix_id is not None)
    first = np.asarray(indices, np.int64) * seq_len + offset
    width = seq_len + 1
    here = first[:, None] + np.arange(width)
    real = here < docs.num_tokens + added * len(docs)

    # documents that end in the row or right after it, and where they end
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
    """`np.searchsorted` in the ends of documents with `added` tokens more each, which are never written out."""
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
    """The same tokens in documents of at most `longest`: full pieces and a rest of each; no empty ones."""
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
    # how many pieces there are of each length [longest + 1]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Where rows begin in `pieces` [n]."""
        indices = np.asarray(indices)
        return np.where(indices > 0, self.ends[indices - 1], 0)

    def efficiency(self, sizes: np.ndarray, capacity: int) -> float:
        """Fraction of the rows' positions that are not padding, for pieces of these sizes by length [longest + 1]."""
        return float(self.counts @ sizes) / max(1, len(self) * capacity)


def cut_and_pack(
    docs: TokenDocuments, sizes: np.ndarray, capacity: int
) -> tuple[TokenDocuments, Packing]:
    """Documents cut into pieces, and the assignment of pieces to rows.

    For a large corpus of shards the result, which takes seconds for a million pieces, is cached beside the shards in
    files named by a hash of all inputs, and memory-mapped from then on.

    Args:
        docs: the corpus.
        sizes: space that a piece of each length takes in a row, control tokens included [longest + 1]; longer documents
            are cut.
        capacity: space in a row.
    """
    longest = len(sizes) - 1
    assert longest >= 1, "a row has no room for a token"
    if docs.folder is None or len(docs) + docs.num_tokens // longest < _WORTH_KEEPING:
        pieces = split_long(docs, longest)
        return pieces, pack(pieces, sizes, capacity)
    name = hashlib.sha256(np.ascontiguousarray(docs.ends, np.int64).data)
    name.update(np.append(sizes, capacity).astype(np.int64).tobytes())
    folder = docs.folder / "packings" / name.hexdigest()[:32]
    if (kept := _read(folder, docs)) is not None:
        return kept
    pieces = split_long(docs, longest)
    packing = pack(pieces, sizes, capacity)
    _keep(folder, {"piece_ends": pieces.ends, **vars(packing)})
    return _read(folder, docs) or (pieces, packing)


_WORTH_KEEPING = 1 << 18


def _read(folder: pathlib.Path, docs: TokenDocuments) -> tuple[TokenDocuments, Packing] | None:
    """What `_keep` wrote; None, and the folder is removed, if it is damaged or may not be read."""
    if not folder.is_dir():
        return None
    # plain views: indexing a memmap object is slower
    read = lambda part: np.asarray(np.load(folder / f"{part}.npy", mmap_mode="r"))
    try:
        pieces = TokenDocuments(docs.tokens, read("piece_ends"))
        packing = Packing(*(read(field.name) for field in dataclasses.fields(Packing)))
        if len(pieces) == len(packing.pieces) and pieces.ends[-1] == docs.num_tokens:
            return pieces, packing
    except (OSError, ValueError, EOFError):  # the last two are NumPy's for files cut short
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _keep(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a folder of arrays, all or nothing, if it may and no other process has just done so."""
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


def pack(pieces: TokenDocuments, sizes: np.ndarray, capacity: int) -> Packing:
    """Best-fit decreasing: each piece, from the largest on, goes to the fullest row that still has room for it.

    Args:
        pieces: what is to be packed.
        sizes: what a piece of each length takes of a row [longest + 1]; none takes more than the whole.
        capacity: what a row holds.
    """
    order, ends = np.empty(len(pieces), np.int64), [np.zeros(0, np.int64)]
    counts = np.zeros(len(sizes), np.int64)
    # in groups, so that the lists of Python's that it takes stay small beside a large corpus
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
    """The pieces row by row, and how many each row has."""
    assert ((sizes > 0) & (sizes <= capacity)).all(), "a piece does not fit a row"
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while there is a row with room for exactly r more
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


# resolution of the sizes of pairs: finer than the number of tokens in the longest rows
_PAIR_CAPACITY = 4096


def pair_sizes(
    inputs: np.ndarray, targets: np.ndarray, input_capacity: int, target_capacity: int
) -> tuple[np.ndarray, int]:
    """Sizes of pairs such that neither side of a row overflows, and the capacity of a row.

    The size of a pair is the fraction of a row that its larger side takes: pairs of one objective have about the same
    proportions, so that little is lost compared with packing in two dimensions.

    Args:
        inputs: input tokens of pieces, at most `input_capacity` [n].
        targets: target tokens of the same pieces, at most `target_capacity` [n].
        input_capacity: input tokens that a row holds.
        target_capacity: target tokens that a row holds.
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

    # number of each piece [p]
    pieces: np.ndarray
    # which of the rows it is in [p], ascending
    rows: np.ndarray
    # number of rows
    num_rows: int


def members(packing: Packing, indices: np.ndarray) -> Members:
    """The pieces of the rows `indices` [n]."""
    starts = packing.starts(indices)
    rows, place = ranges(starts, packing.ends[indices] - starts)
    return Members(packing.pieces[place], rows, len(indices))


def take(docs: TokenDocuments, pieces: np.ndarray) -> Ragged:
    """The tokens of these pieces, int32."""
    first = np.where(pieces > 0, docs.ends[pieces - 1], 0)
    lengths = docs.ends[pieces] - first
    source = ranges(first, lengths)[1]
    return Ragged(docs.gather(source), lengths)


def build_rows(
    sequences: Ragged, row: np.ndarray, num_rows: int, capacity: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Sequences one behind the other in their rows.

    Args:
        sequences: the sequences to place, p of them.
        row: of each sequence [p], ascending.
        num_rows: n.
        capacity: tokens in a row; the sequences of a row fit.
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
    number = np.arange(len(row)) - leaders + 1
    tokens[where], segments[where], positions[where] = sequences.values, number[p], position
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
    """Rows of whole pieces, each between `prefix_id` and `suffix_id` where these are given; see `build_rows`.

    Args:
        docs: the pieces that were packed, by their lengths plus the added tokens.
        packing: which piece is in which row.
        indices: row numbers [n].
        capacity: tokens that a row holds.
        prefix_id: put before each piece ([CLS]).
        suffix_id: put after each piece ([SEP]).
        pad_id: fills the rest of the row.
    """
    chosen = members(packing, indices)
    pieces = framed(take(docs, chosen.pieces), prefix_id, suffix_id)
    return build_rows(pieces, chosen.rows, chosen.num_rows, capacity, pad_id)
