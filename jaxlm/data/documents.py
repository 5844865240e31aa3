"""Documents as token ids: one flat array, and the offsets at which documents end."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from jaxlm.data import vocabulary
from jaxlm.data.token_files import TokenFiles
from jaxlm.data.tokenizer import Tokenizer

# characters encoded at a time: enough to use all cores, little compared with the corpus
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class TokenDocuments:
    """Documents joined end to end; both arrays may be memory-mapped."""

    # ids of all documents [N], uint16 or uint32, or files with them
    tokens: np.ndarray | TokenFiles
    # exclusive end of each document in `tokens` [documents], int64, not decreasing
    ends: np.ndarray
    # whether pieces of different documents must not share a row (private training)
    apart: bool = False

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """The ids of one document."""
        index = range(len(self))[index]
        first = self.ends[index - 1] if index else 0
        return self.gather(np.arange(first, self.ends[index]))

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """The tokens at these positions [...] in all documents, int32."""
        if isinstance(self.tokens, TokenFiles):
            return self.tokens.gather(positions)
        # a plain view: indexing a memmap object is slower
        return np.asarray(self.tokens).take(positions).astype(np.int32)

    @property
    def folder(self) -> pathlib.Path | None:
        """The folder of the token files; None: the tokens are in memory."""
        return self.tokens.paths[0].parent if isinstance(self.tokens, TokenFiles) else None

    @property
    def starts(self) -> np.ndarray:
        """Offset of the first token of each document [documents], int64."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document [documents], int64."""
        return np.diff(self.ends, prepend=0)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self.tokens)

    def owners(self, pieces: TokenDocuments) -> np.ndarray:
        """The index of the document to which each of the pieces that it was cut into belongs [pieces]."""
        return np.searchsorted(self.ends, pieces.ends)


@dataclasses.dataclass(frozen=True)
class TwoTokenizations:
    """The same documents as an encoder reads them and as a decoder writes them, each with its own vocabulary."""

    read: TokenDocuments
    written: TokenDocuments

    def __len__(self) -> int:
        return len(self.written)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents, as they are written."""
        return self.written.num_tokens


def tokenize(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    *,
    progress: Callable[[int], None] | None = None,
) -> TokenDocuments:
    """Encodes documents chunk by chunk, without control tokens: these are added when rows are made (`packing`).

    `progress` is called after every chunk with the number of documents encoded so far.
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
