"""Sentence pairs: texts cut in two, whose second half may be another text's or come first."""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, places, ranges

_CUT, _LABEL, _OTHER = range(3)


def cut_places(lengths: np.ndarray, sentence_ends: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each piece is cut in two [p]: behind a random sentence that is not its last, else in the middle.

    Args:
        lengths: tokens of each piece [p].
        sentence_ends: whether a sentence ends with a token [t].
        keys: random key of each piece [p] uint64.
    """
    owner, place = places(lengths)
    inner = sentence_ends & (place < lengths[owner] - 1)
    counts = np.bincount(owner[inner], minlength=len(lengths))
    found = np.flatnonzero(inner)
    number = np.floor(counter.uniform(counter.bits(keys, _CUT)) * counts).astype(np.int64)
    at = (np.cumsum(counts) - counts + number).clip(max=max(len(found) - 1, 0))
    behind = place[found[at]] + 1 if len(found) else np.zeros_like(lengths)
    return np.where(counts > 0, behind, lengths // 2)


def sentence_pairs(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    sentence_ends: np.ndarray,
    swap: bool,
    other: Ragged | None = None,
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """The pieces cut in two parts, half of them with another second part.

    Args:
        pieces: ids of texts.
        keys: random key of each piece [p] uint64.
        sentence_ends: whether a sentence ends with a token [t].
        swap: the parts of half of the pieces change places (ALBERT's sentence order, Lan et al. 2020, 1909.11942).
            Otherwise the second part of half of them is the beginning of a text in `other` (BERT's next sentence).
        other: a text of another document for each piece [p]; where it is shorter than the part, so is the result.

    Returns:
        The pairs; the length of the first part of each [p]; labels [p] int32: 1 where the parts follow each other,
        0 where they do not, -1 where a piece has less than two tokens and is no pair.
    """
    cut = cut_places(pieces.lengths, sentence_ends, keys)
    is_pair = pieces.lengths > 1
    true = counter.uniform(counter.bits(keys, _LABEL)) < 0.5
    labels = np.where(is_pair, true, -1).astype(np.int32)
    changed = labels == 0
    rest = pieces.lengths - cut
    if swap:
        first = np.where(changed, rest, cut)
        starts = np.stack(
            [pieces.starts + np.where(changed, cut, 0), pieces.starts + np.where(changed, 0, cut)],
            1,
        )
        counts = np.stack([first, pieces.lengths - first], axis=1)
        values = pieces.values
    else:
        assert other is not None
        values = np.concatenate([pieces.values, other.values])
        foreign = np.minimum(rest, other.lengths)
        starts = np.stack([pieces.starts, pieces.starts + cut], axis=1)
        starts[changed, 1] = len(pieces.values) + other.starts[changed]
        counts = np.stack([cut, np.where(changed, foreign, rest)], axis=1)
    taken = values[ranges(starts.reshape(-1), counts.reshape(-1))[1]]
    return Ragged(taken, counts.sum(axis=1)), counts[:, 0], labels


def elsewhere(low: np.ndarray, high: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """A random number below `count` outside of [low, high) for each key [p], which leaves something."""
    drawn = counter.uniform(counter.bits(keys, _OTHER)) * (count - (high - low))
    drawn = np.floor(drawn).astype(np.int64)
    return drawn + np.where(drawn >= low, high - low, 0)
