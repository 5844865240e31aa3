"""Token ids in several binary files, memory-mapped and read as one array."""

from __future__ import annotations

import os
import pathlib

import numpy as np


class TokenFiles:
    """The concatenated tokens of several files; each process opens a file on first access."""

    def __init__(
        self,
        paths: list[pathlib.Path],
        counts: list[int],
        dtype: np.dtype,
        vocab_size: int,
    ):
        """Checks that the files exist and have the right sizes.

        Args:
            paths: the files, in order.
            counts: number of tokens in each file.
            dtype: dtype of the ids in the files.
            vocab_size: all ids must be below it; checked when they are read.

        Raises:
            ValueError: a file is missing or has the wrong size.
        """
        self.paths, self.counts, self.dtype, self.vocab_size = paths, counts, dtype, vocab_size
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        self._open: dict[int, tuple[int, np.ndarray]] = {}
        for path, count in zip(paths, counts):
            if not path.is_file():
                raise ValueError(f"{path}: no such file, but the manifest lists it")
            self._check_size(path, count, path.stat().st_size)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """The tokens at these positions [...], int32.

        Raises:
            ValueError: a file was removed or truncated since the start, or has an id that is not in the vocabulary.
        """
        flat = positions.reshape(-1)
        out = np.empty(len(flat), np.int32)
        owners = np.searchsorted(self.offsets, flat, side="right") - 1
        # consecutive positions are mostly in the same file
        edges = np.flatnonzero(np.diff(owners)) + 1
        starts = np.concatenate([[0], edges]) if len(flat) else edges
        for start, stop in zip(starts, np.append(edges, len(flat))):
            index = int(owners[start])
            part = self._file(index).take(flat[start:stop] - self.offsets[index])
            if len(part) and part.max() >= self.vocab_size:
                raise ValueError(
                    f"{self.paths[index]}: token id {part.max()} is outside of the vocabulary of "
                    f"{self.vocab_size}: the file is damaged, or was written with another tokenizer"
                )
            out[start:stop] = part
        return out.reshape(positions.shape)

    def _file(self, index: int) -> np.ndarray:
        """The tokens of one file; checks its size, because reading past the end of a mapped file kills the process."""
        path, count = self.paths[index], self.counts[index]
        if index not in self._open:
            try:
                with open(path, "rb") as file:
                    mapped = np.memmap(file, self.dtype, "r", shape=(count,))
                    handle = os.dup(file.fileno())
            except (OSError, ValueError) as e:
                raise ValueError(
                    f"{path}: cannot be read any more ({e}): restore it and run the same command again"
                ) from e
            self._open[index] = handle, np.asarray(mapped)
        handle, tokens = self._open[index]
        self._check_size(path, count, os.fstat(handle).st_size)
        return tokens

    def _check_size(self, path: pathlib.Path, count: int, size: int) -> None:
        expected = count * self.dtype.itemsize
        if size != expected:
            fault = "truncated" if size < expected else "too long"
            raise ValueError(
                f"{path}: {size:,} bytes, the manifest says {expected:,}: the file is {fault}; write or copy it again"
            )

    def __del__(self):
        for handle, _ in getattr(self, "_open", {}).values():
            os.close(handle)
