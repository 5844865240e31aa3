"""Corruptions that pretraining objectives undo, as pure functions of (seed, epoch, example).

A row is corrupted the same way alone, in any batch and on any process, so that resumed runs see the same data.
"""

from __future__ import annotations

import numpy as np

from jaxlm.data import counter

# independent streams of random numbers for one example
_CHOICE, _FATE, _REPLACEMENT = range(3)


def random_uniform(
    seed: int, epoch: np.ndarray, index: np.ndarray, stream: int, length: int
) -> np.ndarray:
    """Numbers in [0, 1) for each place of each example: [n, length] float64 from epoch [n] and index [n]."""
    place = np.arange(length)
    return counter.uniform(
        seed, stream, np.asarray(epoch)[:, None], np.asarray(index)[:, None], place
    )


def mask_tokens(
    tokens: np.ndarray,
    *,
    maskable: np.ndarray,
    word_starts: np.ndarray | None,
    vocab_size: int,
    special_ids: np.ndarray | list[int] | frozenset[int],
    mask_id: int,
    rate: float,
    mask_share: float,
    random_share: float,
    seed: int,
    epoch: np.ndarray,
    index: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chooses tokens to restore and hides most of them (BERT, Devlin et al. 2018, section 3.1).

    In each row round(rate x maskable tokens) are chosen, at least one if there is any. With `word_starts` whole words
    are chosen, in random order until so many tokens are reached (the last word may go beyond).

    Args:
        tokens: ids [n, T].
        maskable: whether a token may be chosen [n, T]: neither padding nor special.
        word_starts: whether a word begins at a token [n, T]; None: every token is chosen by itself.
        vocab_size: random replacements are ids below it that are not special.
        special_ids: never used as a replacement.
        mask_id: what most chosen tokens become.
        rate: share of the maskable tokens to choose.
        mask_share: share of the chosen tokens that become `mask_id`.
        random_share: share of the chosen tokens that become a random id; the others stay as they are.
        seed: of the run.
        epoch: of each row [n].
        index: number of each row's example [n].

    Returns:
        inputs [n, T] int32, targets [n, T] int32 (the ids before), weights [n, T] float32 (1 where chosen).
    """
    epoch, index = np.asarray(epoch), np.asarray(index)
    keys = random_uniform(seed, epoch, index, _CHOICE, tokens.shape[1])
    chosen = _choose(keys, maskable, word_starts, rate)

    rows, places = np.nonzero(chosen)
    fate, draw = (
        counter.uniform(seed, stream, epoch[rows], index[rows], places)
        for stream in (_FATE, _REPLACEMENT)
    )
    ordinary = np.delete(np.arange(vocab_size), list(special_ids))
    replacement = ordinary[(draw * len(ordinary)).astype(np.int64)]
    kept = np.where(fate < mask_share + random_share, replacement, tokens[rows, places])
    inputs = tokens.astype(np.int32)
    inputs[rows, places] = np.where(fate < mask_share, mask_id, kept)
    return inputs, tokens.astype(np.int32), chosen.astype(np.float32)


def _choose(
    keys: np.ndarray, maskable: np.ndarray, word_starts: np.ndarray | None, rate: float
) -> np.ndarray:
    """The maskable tokens, or tokens of words, with the smallest keys, as many as the rate asks for: bool [n, T]."""
    if word_starts is not None:
        # all pieces of a word share the key of its first piece
        places = np.arange(keys.shape[1])
        first = np.maximum.accumulate(np.where(word_starts, places, 0), axis=1)
        keys = np.take_along_axis(keys, first, axis=1)
    keys = np.where(maskable, keys, 2.0)
    wanted = np.rint(rate * maskable.sum(axis=1, keepdims=True)).astype(np.int64)
    limit = np.take_along_axis(np.sort(keys, axis=1), np.maximum(wanted, 1) - 1, axis=1)
    return maskable & (keys <= limit)
