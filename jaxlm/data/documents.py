"""Documents as token ids: one flat array with the places where documents end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from jaxlm.data import vocabulary
from jaxlm.data.tokenizer import Tokenizer

# characters encoded at a time: enough for all cores, small beside the corpus
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class TokenDocuments:
    """Documents joined end to end; both arrays may be memory-mapped files."""

    # ids of all documents [N], uint16 or uint32
    tokens: np.ndarray
    # exclusive end of each document in `tokens` [documents], int64, not decreasing
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """The ids of one document."""
        index = range(len(self))[index]
        return self.tokens[self.ends[index - 1] if index else 0 : self.ends[index]]

    @property
    def starts(self) -> np.ndarray:
        """Where each document begins [documents], int64."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document [documents], int64."""
        return np.diff(self.ends, prepend=0)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self.tokens)


def tokenize(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    *,
    progress: Callable[[int], None] | None = None,
) -> TokenDocuments:
    """Encodes documents chunk by chunk, without control tokens: rows put these around them (`packing`).

    `progress` is called after every chunk with the number of documents done so far.
    """
    parts = [np.zeros(0, tokenizer.dtype)]
    lengths: list[int] = []
    for chunk in vocabulary.chunks(documents, _CHUNK):
        encoded = tokenizer.encode_batch(chunk)
        parts.append(np.concatenate(encoded))
        lengths += map(len, encoded)
        if progress is not None:
            progress(len(lengths))
    return TokenDocuments(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64))
