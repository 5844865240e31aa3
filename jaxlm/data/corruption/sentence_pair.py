"""Sentence pairs: texts cut in two, whose second half may be another text's or come first.

A piece of a long document begins and ends within sentences, which would tell its edges apart from where it was cut. So
parts change places between these rests, and what is of another document begins with a sentence.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, places, ranges

_CUT, _LABEL, _OTHER = range(3)


def sentence_starts(
    lengths: np.ndarray, sentence_ends: np.ndarray, begins: np.ndarray
) -> np.ndarray:
    """Where the first sentence of each piece begins [p]: its length, if none does.

    Args:
        lengths: tokens of each piece [p].
        sentence_ends: whether a sentence ends with a token [t].
        begins: whether a piece begins where a sentence does [p].
    """
    owner, place = places(lengths)
    first = np.array(lengths)
    np.minimum.at(first, owner[sentence_ends], place[sentence_ends] + 1)
    return np.where(begins, 0, first)


def _last_ends(lengths: np.ndarray, sentence_ends: np.ndarray) -> np.ndarray:
    """Where the last sentence of each piece ends [p]: 0, if none does."""
    owner, place = places(lengths)
    last = np.zeros_like(lengths)
    np.maximum.at(last, owner[sentence_ends], place[sentence_ends] + 1)
    return last


def _cuts(
    lengths: np.ndarray,
    sentence_ends: np.ndarray,
    keys: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Behind which sentence each piece is cut in two [p], at random between `low` and `high`, and whether it is [p]."""
    owner, place = places(lengths)
    inner = sentence_ends & (place + 1 > low[owner]) & (place + 1 < high[owner])
    counts = np.bincount(owner[inner], minlength=len(lengths))
    found = np.flatnonzero(inner)
    number = np.floor(counter.uniform(counter.bits(keys, _CUT)) * counts).astype(np.int64)
    at = (np.cumsum(counts) - counts + number).clip(max=max(len(found) - 1, 0))
    behind = place[found[at]] + 1 if len(found) else np.zeros_like(lengths)
    return np.where(counts > 0, behind, lengths), counts > 0


def sentence_pairs(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    sentence_ends: np.ndarray,
    begins: np.ndarray,
    other: Ragged | None = None,
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """The pieces cut in two parts behind a sentence, half of them with another second part.

    Without `other` the parts change places (ALBERT's sentence order, Lan et al. 2020, 1909.11942), but for the rests of
    sentences at the edges of the piece. With it the second part of half of them is the beginning of a text of another
    document (BERT's next sentence, Devlin et al. 2018, section 3.1).

    Args:
        pieces: ids of texts.
        keys: random key of each piece [p] uint64.
        sentence_ends: whether a sentence ends with a token [t].
        begins: whether a piece begins where a sentence does [p].
        other: a text of another document for each piece [p]; where it is shorter than the part, so is the result, and
            where it is empty the piece keeps its own part.

    Returns:
        The pairs; the length of the first part of each [p]; labels [p] int32: 1 where the parts follow each other,
        0 where they do not, -1 where a piece has not two sentences and is no pair.
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
        # rest, second part, first part, rest
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


def elsewhere(low: np.ndarray, high: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """A random number below `count` outside of [low, high) for each key [p], which leaves something."""
    drawn = counter.uniform(counter.bits(keys, _OTHER)) * (count - (high - low))
    drawn = np.floor(drawn).astype(np.int64)
    return drawn + np.where(drawn >= low, high - low, 0)
