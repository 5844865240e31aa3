"""Masked language modeling: chooses tokens to predict, one by one, by whole words or by runs of words.

Letters: n rows, T positions.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter

# independent streams of random numbers for one example
_CHOICE, _TREATMENT, _REPLACEMENT, _LENGTH = range(4)


def mask_tokens(
    tokens: np.ndarray,
    *,
    maskable: np.ndarray,
    keys: np.ndarray,
    vocab_size: int,
    special_ids: np.ndarray | list[int] | frozenset[int],
    mask_id: int,
    mask_fraction: float,
    mask_token_fraction: float,
    random_token_fraction: float,
    word_starts: np.ndarray | None = None,
    units: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chooses tokens to predict and masks most of them (BERT, Devlin et al. 2018, section 3.1).

    In each row round(mask_fraction x maskable tokens) are chosen, at least one if there is any. With `word_starts`
    whole words are chosen in random order until that number is reached (the last word may exceed it). With `units` too,
    runs of words are chosen; the last one is cut after the word that reaches the number, and all tokens of a run get
    the same treatment (SpanBERT, Joshi et al. 2020, 1907.10529, section 3.1).

    Args:
        tokens: ids [n, T].
        maskable: whether a token may be chosen [n, T]: not padding and not special.
        keys: random key of each row [n] uint64.
        vocab_size: random replacements are below it and not special.
        special_ids: never used as a replacement.
        mask_id: replaces most of the chosen tokens.
        mask_fraction: fraction of the maskable tokens to choose.
        mask_token_fraction: fraction of the chosen tokens that are replaced by `mask_id`.
        random_token_fraction: fraction of the chosen tokens that are replaced by a random id; the others are kept.
        word_starts: whether a word begins at a token [n, T]; None: tokens are chosen one by one.
        units: whether a run of words begins at a token [n, T], from `unit_starts`; None: words are chosen one by one.

    Returns:
        inputs [n, T] int32, targets [n, T] int32 (the original ids), weights [n, T] float32 (1 where chosen).
    """
    first = None if units is None else _first(units)
    chosen = _choose(keys, maskable, mask_fraction, word_starts, first)
    rows, positions = np.nonzero(chosen)
    # all tokens of a run get the same random number
    drawn_at = positions if first is None else first[rows, positions]
    treatment = counter.uniform(counter.bits(keys, _TREATMENT)[rows], drawn_at)
    draw = counter.uniform(counter.bits(keys, _REPLACEMENT)[rows], positions)
    ordinary = np.delete(np.arange(vocab_size), list(special_ids))
    replacement = ordinary[(draw * len(ordinary)).astype(np.int64)]
    unmasked = np.where(
        treatment < mask_token_fraction + random_token_fraction,
        replacement,
        tokens[rows, positions],
    )
    inputs = tokens.astype(np.int32)
    inputs[rows, positions] = np.where(treatment < mask_token_fraction, mask_id, unmasked)
    return inputs, tokens.astype(np.int32), chosen.astype(np.float32)


def unit_starts(
    word_starts: np.ndarray, fences: np.ndarray, keys: np.ndarray, chances: np.ndarray
) -> np.ndarray:
    """Divides each row into runs of words; the number of words of each run is drawn independently.

    Args:
        word_starts: whether a word begins at a token [n, T].
        fences: tokens that are always a run of their own [n, T]: special tokens and padding.
        keys: random key of each row [n] uint64.
        chances: probability of a run of 1, 2, ... words [longest]; from `ngram_chances` or `geometric_chances`.

    Returns:
        Whether a run begins at a token [n, T] bool.
    """
    rows, length = word_starts.shape
    draws = counter.uniform(counter.bits(keys, _LENGTH)[:, None], np.arange(length))
    sizes = 1 + np.searchsorted(np.cumsum(chances)[:-1], draws, side="right")
    begins = np.cumsum(sizes, axis=1)
    starts_run = np.zeros((rows, length + 1), bool)
    starts_run[:, 0] = True
    row, which = np.nonzero(begins < length)
    starts_run[row, begins[row, which]] = True
    # index of the word that each token belongs to
    word = np.maximum(np.cumsum(word_starts, axis=1) - 1, 0)
    starts = word_starts & np.take_along_axis(starts_run, word, axis=1)
    starts |= fences
    starts[:, 1:] |= fences[:, :-1]
    starts[:, 0] = True
    return starts


def ngram_chances(longest: int) -> np.ndarray:
    """Probabilities of 1, 2, ... words proportional to 1/n (ALBERT, Lan et al. 2020, 1909.11942, section 4.1)."""
    chances = 1 / np.arange(1, longest + 1)
    return chances / chances.sum()


def geometric_chances(p: float, longest: int) -> np.ndarray:
    """Probabilities of 1, 2, ... words, geometric and truncated at the longest (SpanBERT, section 3.1)."""
    chances = p * (1 - p) ** np.arange(longest)
    return chances / chances.sum()


def _first(starts: np.ndarray) -> np.ndarray:
    """For each token the position at which its word or run begins [n, T]."""
    return np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), 0), axis=1)


def _choose(
    keys: np.ndarray,
    maskable: np.ndarray,
    mask_fraction: float,
    word_starts: np.ndarray | None,
    unit: np.ndarray | None,
) -> np.ndarray:
    """Whether each token is chosen [n, T] bool: units are taken in random order until the fraction is reached."""
    positions = np.arange(maskable.shape[1])
    word = None if word_starts is None else _first(word_starts)
    noise = counter.bits(counter.bits(keys, _CHOICE)[:, None], positions)
    group = word if unit is None else unit
    if group is not None:
        noise = np.take_along_axis(noise, group, axis=1)
    # the position in the low bits makes all values distinct, and orders the tokens of a unit
    order = (noise & ~np.uint64(0xFFFFF)) | positions.astype(np.uint64)
    order = np.where(maskable, order, ~np.uint64(0))
    wanted = np.rint(mask_fraction * maskable.sum(axis=1, keepdims=True)).astype(np.int64)
    limit = np.take_along_axis(np.sort(order, axis=1), np.maximum(wanted, 1) - 1, axis=1)
    chosen = maskable & (order <= limit)
    if word is None:
        return chosen
    # the word of the last chosen token is chosen as a whole
    last = np.take_along_axis(word, np.argmax(order == limit, axis=1)[:, None], axis=1)
    return chosen | (maskable & (word == last) & chosen.any(axis=1, keepdims=True))
