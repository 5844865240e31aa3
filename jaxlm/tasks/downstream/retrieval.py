"""How well vectors find what belongs to them: retrieval over all candidates, and the order of similarities."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

# queries whose similarities to all candidates are in memory at a time
_ROWS = 1024


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors [..., D] scaled to length 1, in float32; vectors of zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, 1e-12)


def ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    right: Sequence[Collection[int]],
    ignored: Sequence[int | None],
) -> np.ndarray:
    """The rank, from 1, of the nearest right candidate of each query by cosine [n].

    It is one more than the number of wrong candidates that are at least as near: a tie is not a success.

    Args:
        queries: vectors [n, D].
        candidates: vectors [m, D].
        right: for each query the indices of its right candidates, at least one.
        ignored: for each query the index of a candidate that does not count, such as the query itself.
    """
    queries, candidates = unit(queries), unit(candidates)
    out = np.zeros(len(queries), np.int64)
    for i, own in enumerate(right):
        if i % _ROWS == 0:
            cosines = queries[i : i + _ROWS] @ candidates.T
        row = cosines[i % _ROWS]
        wrong = np.ones(len(row), bool)
        wrong[list(own)] = False
        best = row[~wrong].max()
        if (other := ignored[i]) is not None:
            wrong[other] = False
        out[i] = 1 + (row[wrong] >= best).sum()
    return out


def retrieval(found: np.ndarray) -> dict[str, float]:
    """accuracy_at_1, accuracy_at_10 and mrr, the mean of 1 / rank, from the `ranks` of queries."""
    return {
        "accuracy_at_1": float((found == 1).mean()),
        "accuracy_at_10": float((found <= 10).mean()),
        "mrr": float((1 / found).mean()),
    }
