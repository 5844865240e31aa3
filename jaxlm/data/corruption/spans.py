"""Span corruption: spans give way to one sentinel each, and the target names what each sentinel stood for (T5).

How many tokens and spans of a piece are noise follows from its length alone, so that its lengths on both sides are
known before anything is drawn, and rows can be packed once for all epochs.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter
from jaxlm.data.ragged import Ragged, compose, insert, places

_SPANS, _GAPS = range(2)


def noise_counts(
    lengths: np.ndarray, density: float, mean_span: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of pieces of these lengths [p] are noise, and in how many spans [p].

    round(density x length) tokens, at least 1 and, of two or more, not all; round(noise / mean_span) spans, at least 1
    and not more than there are tokens to lie between them. `mean_span` None: a single span.
    """
    lengths = np.asarray(lengths, np.int64)
    noise = np.clip(np.rint(lengths * density).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    if mean_span is None:
        return noise, np.ones_like(noise)
    spans = np.rint(noise / mean_span).astype(np.int64)
    return noise, np.clip(spans, 1, np.minimum(noise, lengths - noise + 1))


def corrupted_lengths(
    lengths: np.ndarray, density: float, mean_span: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The lengths that `corrupt_spans` gives pieces of these lengths: of the inputs [p], of the targets [p]."""
    noise, spans = noise_counts(lengths, density, mean_span)
    return lengths - noise + spans, noise + spans


def longest_piece(
    density: float, mean_span: float | None, input_room: int, target_room: int | None = None
) -> int:
    """Tokens of the longest piece whose inputs fit `input_room` and, if that is given, targets `target_room`.

    Raises:
        ValueError: not even one token fits.
    """
    # every token gives an input token, unless it is noise, which a share of 1 - density is not
    lengths = np.arange(1, int(input_room / (1 - density)) + 2)
    inputs, targets = corrupted_lengths(lengths, density, mean_span)
    fits = inputs <= input_room
    if target_room is not None:
        fits &= targets <= target_room
    if not fits.any():
        raise ValueError(
            f"rows of {input_room} input and {target_room} target tokens hold no corrupted text: make them longer"
        )
    return int(lengths[fits].max())


def corrupt_spans(
    pieces: Ragged,
    *,
    keys: np.ndarray,
    density: float,
    mean_span: float | None,
    sentinels: np.ndarray,
    at_end: bool = False,
) -> tuple[Ragged, Ragged]:
    """Inputs with a sentinel in place of each noise span, targets with each sentinel and its span behind it.

    After T5 (Raffel et al. 2020, 1910.10683, section 3.1.4): the number of noise tokens is exact, no two spans touch.
    All placements of the spans and all their lengths are equally likely; T5's own code lets every piece end in noise.

    Args:
        pieces: ids of texts of at least one token each.
        keys: random key of each piece [p] uint64.
        density: share of the tokens that are noise.
        mean_span: mean length of a span; None: one span.
        sentinels: ids of the sentinel tokens in order; as many as a piece has spans.
        at_end: the (one) span is the end of the piece, as UL2's sequential denoiser has it.
    """
    noise, spans = noise_counts(pieces.lengths, density, mean_span)
    span_lengths = compose(noise, spans, counter.bits(keys, _SPANS))
    if at_end:
        assert mean_span is None
        gaps = np.stack([pieces.lengths - noise, np.zeros_like(noise)], axis=1).reshape(-1)
    else:
        gaps = outer_gaps(pieces.lengths - noise, spans, counter.bits(keys, _GAPS))
    hidden = hidden_tokens(spans, span_lengths, gaps)
    owner, number = places(spans)
    assert len(sentinels) >= spans.max(initial=0), "more spans than sentinels"
    kept = Ragged(pieces.values[~hidden], pieces.lengths - noise)
    inputs = insert(kept, span_places(spans, gaps), sentinels[number], owner)
    removed = Ragged(pieces.values[hidden], noise)
    targets = insert(removed, np.cumsum(span_lengths) - span_lengths, sentinels[number], owner)
    return inputs, targets


def outer_gaps(rest: np.ndarray, spans: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """What lies before, between and behind the spans: `spans + 1` lengths that sum to `rest`, the inner at least 1."""
    gaps = compose(rest + 2, spans + 1, keys)
    last = np.cumsum(spans + 1) - 1
    gaps[last] -= 1
    gaps[last - spans] -= 1
    return gaps


def hidden_tokens(spans: np.ndarray, span_lengths: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Whether each token of the pieces lies in a span [t], from the lengths of gaps and spans in turn."""
    _, turn = places(2 * spans + 1)
    is_span = turn % 2 == 1
    lengths = np.empty(len(turn), np.int64)
    lengths[is_span], lengths[~is_span] = span_lengths, gaps
    return np.repeat(is_span, lengths)


def span_places(spans: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Where, among the tokens that are kept, each span lay [sum of spans]."""
    _, turn = places(spans + 1)
    ends = np.cumsum(gaps)
    return ends[turn < np.repeat(spans, spans + 1)]
