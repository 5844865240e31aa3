"""Sentence pairs: texts cut in two parts, which may be swapped or have the second part replaced by another text.

A piece of a long document usually begins and ends in the middle of a sentence, from which a model could tell whether
parts were swapped. Therefore the incomplete sentences at the edges stay in place when parts are swapped, and a text
from another document begins with a sentence.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, owners_and_offsets, ranges

_CUT, _LABEL, _OTHER = range(3)


def sentence_starts(
    lengths: np.ndarray, sentence_ends: np.ndarray, begins: np.ndarray
) -> np.ndarray:
    """Offset at which the first whole sentence of each piece begins [p]; the length of the piece if there is none.

    Args:
        lengths: tokens of each piece [p].
        sentence_ends: whether a sentence ends with a token [t].
        begins: whether a piece begins with a sentence [p].
    """
    owner, offset = owners_and_offsets(lengths)
    first = np.array(lengths)
    np.minimum.at(first, owner[sentence_ends], offset[sentence_ends] + 1)
    return np.where(begins, 0, first)


def _last_ends(lengths: np.ndarray, sentence_ends: np.ndarray) -> np.ndarray:
    """Offset at which the last whole sentence of each piece ends [p]; 0 if there is none."""
    owner, offset = owners_and_offsets(lengths)
    last = np.zeros_like(lengths)
    np.maximum.at(last, owner[sentence_ends], offset[sentence_ends] + 1)
    return last


def _cuts(
    lengths: np.ndarray,
    sentence_ends: np.ndarray,
    keys: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Random offsets between `low` and `high` at which a sentence ends [p], and whether there is one [p]."""
    owner, offset = owners_and_offsets(lengths)
    inner = sentence_ends & (offset + 1 > low[owner]) & (offset + 1 < high[owner])
    counts = np.bincount(owner[inner], minlength=len(lengths))
    candidates = np.flatnonzero(inner)
    index = np.floor(counter.uniform(counter.bits(keys, _CUT)) * counts).astype(np.int64)
    chosen = (np.cumsum(counts) - counts + index).clip(max=max(len(candidates) - 1, 0))
    cuts = offset[candidates[chosen]] + 1 if len(candidates) else np.zeros_like(lengths)
    return np.where(counts > 0, cuts, lengths), counts > 0


def sentence_pairs(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    sentence_ends: np.ndarray,
    begins: np.ndarray,
    other: Ragged | None = None,
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """The pieces cut in two parts at the end of a sentence, half of them swapped or with another second part.

    Without `other` the parts are swapped (ALBERT's sentence order, Lan et al. 2020, 1909.11942), except for incomplete
    sentences at the edges of the piece. With it the second part is replaced by the beginning of a text from another
    document (BERT's next sentence prediction, Devlin et al. 2018, section 3.1).

    Args:
        pieces: ids of texts.
        keys: random key of each piece [p] uint64.
        sentence_ends: whether a sentence ends with a token [t].
        begins: whether a piece begins with a sentence [p].
        other: a text from another document for each piece [p]; if it is shorter than the part, so is the result, and
            if it is empty the piece keeps its own part.

    Returns:
        The pairs; the length of the first part of each [p]; labels [p] int32: 1 if the second part follows the first
        in the text, 0 if not, -1 if a piece has fewer than two sentences and is not a pair.
    """
    lengths = pieces.lengths
    low, high = np.zeros_like(lengths), lengths
    if other is None:
        low = sentence_starts(lengths, sentence_ends, begins)
        high = _last_ends(lengths, sentence_ends)
    cut, is_pair = _cuts(lengths, sentence_ends, keys, low, high)
    true = counter.uniform(counter.bits(keys, _LABEL)) < 0.5
    if other is not None:
        true = true | (other.lengths == 0)
    labels = np.where(is_pair, true, -1).astype(np.int32)
    changed = labels == 0
    zero = np.zeros_like(cut)
    if other is None:
        values, first = pieces.values, np.where(changed, low + high - cut, cut)
        low, high = (np.where(changed, edge, cut) for edge in (low, high))
        # incomplete sentence, second part, first part, incomplete sentence
        starts = np.stack([zero, cut, low, high], 1) + pieces.starts[:, None]
        counts = np.stack([low, high - cut, cut - low, lengths - high], 1)
    else:
        values, first = np.concatenate([pieces.values, other.values]), cut
        starts = pieces.starts[:, None] + np.stack([zero, cut], 1)
        starts[changed, 1] = len(pieces.values) + other.starts[changed]
        rest = lengths - cut
        counts = np.stack([cut, np.where(changed, np.minimum(rest, other.lengths), rest)], 1)
    taken = values[ranges(starts.reshape(-1), counts.reshape(-1))[1]]
    return Ragged(taken, counts.sum(axis=1)), first, labels


def sample_outside(low: np.ndarray, high: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """A random index below `count` and outside of [low, high) for each key [p]; some index must be outside."""
    drawn = counter.uniform(counter.bits(keys, _OTHER)) * (count - (high - low))
    drawn = np.floor(drawn).astype(np.int64)
    return drawn + np.where(drawn >= low, high - low, 0)
