"""Fill in the middle: a causal model learns to write the text between a given prefix and suffix."""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, insert, ranges

_CHANGED, _MODE, _CUTS = range(3)


def fill_in_middle(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    fraction: float,
    spm_fraction: float,
    prefix_id: int,
    suffix_id: int,
    middle_id: int,
) -> Ragged:
    """A fraction of the pieces with the middle part moved to the end (Bavarian et al. 2022, 2207.14255, section 3).

    Two cuts, uniformly random, divide a piece into prefix, middle and suffix, each of which may be empty. PSM gives
    `<PRE> prefix <SUF> suffix <MID> middle`, SPM `<PRE> <SUF> suffix <MID> prefix middle` (the variant of the paper's
    appendix D). Changed pieces become three tokens longer. Cuts are between tokens, not characters.

    Args:
        pieces: ids of texts.
        keys: random key of each piece [p] uint64.
        fraction: fraction of the pieces to change.
        spm_fraction: fraction of those in which the suffix comes first (SPM).
        prefix_id: <PRE>.
        suffix_id: <SUF>.
        middle_id: <MID>.
    """
    chance = lambda stream, index=0: counter.uniform(counter.bits(keys, stream), index)
    changed = chance(_CHANGED) < fraction
    spm = chance(_MODE) < spm_fraction
    cuts = [np.floor(chance(_CUTS, i) * (pieces.lengths + 1)).astype(np.int64) for i in (0, 1)]
    # an unchanged piece is all prefix
    a = np.where(changed, np.minimum(*cuts), pieces.lengths)
    b = np.where(changed, np.maximum(*cuts), pieces.lengths)
    start, end = pieces.starts, pieces.ends
    prefix, middle, suffix = (start, a), (start + a, b - a), (start + b, end - start - b)

    # PSM: prefix suffix middle; SPM: suffix prefix middle
    swap = (changed & spm)[:, None]
    pick = lambda i: np.where(
        swap, np.stack([suffix[i], prefix[i]], 1), np.stack([prefix[i], suffix[i]], 1)
    )
    parts = [np.concatenate([pick(i), middle[i][:, None]], axis=1) for i in (0, 1)]
    moved = Ragged(
        pieces.values[ranges(parts[0].reshape(-1), parts[1].reshape(-1))[1]], pieces.lengths
    )

    # offsets in the moved text at which the three control tokens of a changed piece are inserted
    before_suffix = np.where(spm, 0, a)
    before_middle = np.where(spm, end - start - b, a + end - start - b)
    offsets = start[:, None] + np.stack([np.zeros_like(a), before_suffix, before_middle], axis=1)
    ids = np.broadcast_to([prefix_id, suffix_id, middle_id], offsets.shape)
    which = np.flatnonzero(changed)
    return insert(moved, offsets[which].reshape(-1), ids[which].reshape(-1), np.repeat(which, 3))
