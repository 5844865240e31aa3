"""BART's corruptions: sentence shuffling, token deletion, text infilling and rotation.

The decoder learns to write the original text. There is a function for each corruption; `denoise` applies them in the
order above.
"""

from __future__ import annotations

import math

import numpy as np

from jaxlm.data import counter
from jaxlm.data.corruption.spans import is_noise, outer_gaps, span_offsets
from jaxlm.data.ragged import Ragged, choose, insert, owners_and_offsets, ranges

_SHUFFLED, _SHUFFLE, _DELETED, _LENGTHS, _GAPS, _ROTATED, _ROTATION = range(7)


def denoise(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    sentence_ends: np.ndarray,
    mask_id: int,
    infill_fraction: float,
    mean_span: float,
    permute_fraction: float,
    delete_fraction: float,
    rotate_fraction: float,
) -> Ragged:
    """The corrupted pieces, from which a model restores the originals (Lewis et al. 2019, 1910.13461, section 2.2).

    No result is longer than its piece.

    Args:
        pieces: ids of texts of at least one token each.
        keys: random key of each piece [p] uint64.
        sentence_ends: whether a sentence ends with a token [t].
        mask_id: replaces a span of any length.
        infill_fraction: fraction of the tokens that are replaced by masks, exactly.
        mean_span: mean length of a span (Poisson); a span of length 0 inserts a mask.
        permute_fraction: fraction of the pieces whose sentences are shuffled.
        delete_fraction: fraction of the tokens that are deleted, exactly.
        rotate_fraction: fraction of the pieces that are rotated to begin with a random token.
    """
    chance = lambda stream: counter.uniform(counter.bits(keys, stream))
    order = shuffled_sentences(
        pieces.lengths,
        sentence_ends,
        keys=counter.bits(keys, _SHUFFLE),
        which=chance(_SHUFFLED) < permute_fraction,
    )
    text = Ragged(pieces.values[order], pieces.lengths)
    if delete_fraction:
        text = delete(text, keys=counter.bits(keys, _DELETED), fraction=delete_fraction)
    if infill_fraction:
        text = infill(
            text, keys=keys, fraction=infill_fraction, mean_span=mean_span, mask_id=mask_id
        )
    shifts = np.floor(counter.uniform(counter.bits(keys, _ROTATION)) * text.lengths)
    shifts = np.where(chance(_ROTATED) < rotate_fraction, shifts, 0).astype(np.int64)
    return rotate(text, shifts)


def shuffled_sentences(
    lengths: np.ndarray, sentence_ends: np.ndarray, *, keys: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """Indices into the tokens of all pieces that shuffle the sentences of the pieces in `which` [t]."""
    ends = sentence_ends.copy()
    ends[np.cumsum(lengths)[lengths > 0] - 1] = True
    stops = np.flatnonzero(ends) + 1
    begins = np.concatenate([np.zeros(1, np.int64), stops])[:-1]
    owner = np.repeat(np.arange(len(lengths)), lengths)[begins]
    noise = counter.bits(keys[owner], begins - (np.cumsum(lengths) - lengths)[owner])
    noise[~which[owner]] = 0  # the sort is stable: these keep their order
    order = np.lexsort((noise, owner))
    return ranges(begins[order], (stops - begins)[order])[1]


def delete(pieces: Ragged, *, keys: np.ndarray, fraction: float) -> Ragged:
    """The pieces with round(fraction x length) of their tokens deleted; at least one token is kept."""
    counts = np.rint(pieces.lengths * fraction).astype(np.int64)
    counts = np.minimum(counts, pieces.lengths - 1)
    deleted = choose(pieces.lengths, counts, keys)
    return Ragged(pieces.values[~deleted], pieces.lengths - counts)


def infill(
    pieces: Ragged, *, keys: np.ndarray, fraction: float, mean_span: float, mask_id: int
) -> Ragged:
    """The pieces with spans of Poisson lengths, round(fraction x length) tokens in total, replaced by one mask each.

    Spans are not adjacent. There are never more spans than replaced tokens, so no piece becomes longer.
    """
    noise = np.rint(pieces.lengths * fraction).astype(np.int64)
    noise = np.clip(noise, 1, np.maximum(pieces.lengths - 1, 1))
    rest = pieces.lengths - noise
    spans, span_lengths = _poisson_spans(
        noise, np.minimum(noise, rest + 1), counter.bits(keys, _LENGTHS), mean_span
    )
    gaps = outer_gaps(rest, spans, counter.bits(keys, _GAPS))
    in_span = is_noise(spans, span_lengths, gaps)
    kept = Ragged(pieces.values[~in_span], rest)
    return insert(kept, span_offsets(spans, gaps), mask_id, owners_and_offsets(spans)[0])


def _poisson_spans(
    totals: np.ndarray, most: np.ndarray, keys: np.ndarray, mean: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths drawn from a Poisson distribution that sum to each total: how many [p], and the lengths end to end.

    They are drawn one after another until the total is reached, and the last is cut. If `most` lengths do not reach
    the total, the last one is increased.
    """
    owner, offset = owners_and_offsets(most)
    likely = int(mean + 12 * math.sqrt(mean) + 12)
    chances = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(likely)]
    draws = np.searchsorted(np.cumsum(chances), counter.uniform(keys[owner], offset), side="right")
    sums = np.cumsum(draws)
    first = np.cumsum(most) - most
    sums -= (sums[first] - draws[first])[owner]
    used = sums - draws < totals[owner]
    draws = np.minimum(sums, totals[owner])[used] - (sums - draws)[used]
    counts = np.bincount(owner[used], minlength=len(totals))
    missing = totals - np.minimum(sums[np.cumsum(most) - 1], totals)
    draws[np.cumsum(counts) - 1] += missing
    return counts, draws


def rotate(pieces: Ragged, shifts: np.ndarray) -> Ragged:
    """Each piece from its token `shifts[p]` on, followed by the tokens before it."""
    owner, offset = owners_and_offsets(pieces.lengths)
    lengths = np.maximum(pieces.lengths, 1)
    source = pieces.starts[owner] + (offset + shifts[owner]) % lengths[owner]
    return Ragged(pieces.values[source], pieces.lengths)
