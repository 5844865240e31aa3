"""Span corruption: each noise span is replaced by a sentinel, and the target lists the sentinels with their spans (T5).

The numbers of noise tokens and spans depend on the length of a piece alone. So the lengths of inputs and targets are
known in advance, and rows can be packed once for all epochs.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, compose, insert, owners_and_offsets

_SPANS, _GAPS = range(2)


def noise_counts(
    lengths: np.ndarray, noise_fraction: float, mean_span: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of noise tokens [p] and of noise spans [p] in pieces of these lengths [p].

    round(noise_fraction x length) tokens, at least 1 and fewer than the length (if that is 2 or more);
    round(noise / mean_span) spans, at least 1 and few enough that spans are not adjacent. `mean_span` None: one span.
    """
    lengths = np.asarray(lengths, np.int64)
    noise = np.clip(
        np.rint(lengths * noise_fraction).astype(np.int64), 1, np.maximum(lengths - 1, 1)
    )
    if mean_span is None:
        return noise, np.ones_like(noise)
    spans = np.rint(noise / mean_span).astype(np.int64)
    return noise, np.clip(spans, 1, np.minimum(noise, lengths - noise + 1))


def corrupted_lengths(
    lengths: np.ndarray, noise_fraction: float, mean_span: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of the inputs [p] and of the targets [p] that `corrupt_spans` returns for pieces of these lengths."""
    noise, spans = noise_counts(lengths, noise_fraction, mean_span)
    return lengths - noise + spans, noise + spans


def longest_piece(
    noise_fraction: float, mean_span: float | None, input_room: int, target_room: int | None = None
) -> int:
    """Number of tokens of the longest piece whose inputs fit in `input_room` and, if given, targets in `target_room`.

    Raises:
        ValueError: not even one token fits.
    """
    # a fraction of 1 - noise_fraction of the tokens is not noise and stays in the inputs
    lengths = np.arange(1, int(input_room / (1 - noise_fraction)) + 2)
    inputs, targets = corrupted_lengths(lengths, noise_fraction, mean_span)
    fits = inputs <= input_room
    if target_room is not None:
        fits &= targets <= target_room
    if not fits.any():
        raise ValueError(
            f"rows of {input_room} input and {target_room} target tokens are too short for a corrupted text: "
            "increase their length"
        )
    return int(lengths[fits].max())


def corrupt_spans(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    noise_fraction: float,
    mean_span: float | None,
    sentinels: np.ndarray,
    at_end: bool = False,
) -> tuple[Ragged, Ragged]:
    """Inputs with a sentinel in place of each noise span, targets with each sentinel followed by its span.

    After T5 (Raffel et al. 2020, 1910.10683, section 3.1.4): the number of noise tokens is exact, no two spans are
    adjacent. All placements and lengths of the spans are equally likely; in T5's own code every piece ends in noise.

    Args:
        pieces: ids of texts of at least one token each.
        keys: random key of each piece [p] uint64.
        noise_fraction: fraction of the tokens that are noise.
        mean_span: mean length of a span; None: one span.
        sentinels: ids of the sentinel tokens in order; at least as many as a piece has spans.
        at_end: the single span is the end of the piece, as in UL2's sequential denoiser.
    """
    noise, spans = noise_counts(pieces.lengths, noise_fraction, mean_span)
    span_lengths = compose(noise, spans, counter.bits(keys, _SPANS))
    if at_end:
        assert mean_span is None
        gaps = np.stack([pieces.lengths - noise, np.zeros_like(noise)], axis=1).reshape(-1)
    else:
        gaps = outer_gaps(pieces.lengths - noise, spans, counter.bits(keys, _GAPS))
    noise_mask = is_noise(spans, span_lengths, gaps)
    owner, index = owners_and_offsets(spans)
    assert len(sentinels) >= spans.max(initial=0), "more spans than sentinels"
    kept = Ragged(pieces.values[~noise_mask], pieces.lengths - noise)
    inputs = insert(kept, span_offsets(spans, gaps), sentinels[index], owner)
    removed = Ragged(pieces.values[noise_mask], noise)
    targets = insert(removed, np.cumsum(span_lengths) - span_lengths, sentinels[index], owner)
    return inputs, targets


def outer_gaps(rest: np.ndarray, spans: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Lengths of the `spans + 1` gaps around the spans, which sum to `rest`; gaps between spans are at least 1."""
    gaps = compose(rest + 2, spans + 1, keys)
    last = np.cumsum(spans + 1) - 1
    gaps[last] -= 1
    gaps[last - spans] -= 1
    return gaps


def is_noise(spans: np.ndarray, span_lengths: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Whether each token of the pieces is in a span [t], from the lengths of spans and gaps, which alternate."""
    _, turn = owners_and_offsets(2 * spans + 1)
    is_span = turn % 2 == 1
    lengths = np.empty(len(turn), np.int64)
    lengths[is_span], lengths[~is_span] = span_lengths, gaps
    return np.repeat(is_span, lengths)


def span_offsets(spans: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Offset of each span among the tokens that are not noise [sum of spans]."""
    _, turn = owners_and_offsets(spans + 1)
    ends = np.cumsum(gaps)
    return ends[turn < np.repeat(spans, spans + 1)]
