"""Tokens in several files of raw numbers, read by memory map as if they were one array."""

from __future__ import annotations

import os
import pathlib

import numpy as np


class TokenFiles:
    """The tokens of files end to end; files are opened when they are first read, in each process by itself."""

    def __init__(
        self,
        paths: list[pathlib.Path],
        counts: list[int],
        dtype: np.dtype,
        vocab_size: int,
    ):
        """`counts` are the tokens in each file, and every id is to be below `vocab_size`.

        Raises:
            ValueError: a file that is not there, or has another size.
        """
        self.paths, self.counts, self.dtype, self.vocab_size = paths, counts, dtype, vocab_size
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        self._open: dict[int, tuple[int, np.ndarray]] = {}
        for path, count in zip(paths, counts):
            if not path.is_file():
                raise ValueError(f"{path}: no such file, but the manifest names it")
            self._check_size(path, count, path.stat().st_size)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}

    def gather(self, places: np.ndarray) -> np.ndarray:
        """The tokens at these places [...], int32.

        Raises:
            ValueError: a file has gone or shrunk since the start, or holds an id that is not in the vocabulary.
        """
        flat = places.reshape(-1)
        out = np.empty(len(flat), np.int32)
        owners = np.searchsorted(self.offsets, flat, side="right") - 1
        # neighbours are mostly of one file
        edges = np.flatnonzero(np.diff(owners)) + 1
        starts = np.concatenate([[0], edges]) if len(flat) else edges
        for start, stop in zip(starts, np.append(edges, len(flat))):
            number = int(owners[start])
            part = self._file(number).take(flat[start:stop] - self.offsets[number])
            if len(part) and part.max() >= self.vocab_size:
                raise ValueError(
                    f"{self.paths[number]}: token id {part.max()} is outside of the vocabulary of "
                    f"{self.vocab_size}: the file is damaged, or of another tokenizer"
                )
            out[start:stop] = part
        return out.reshape(places.shape)

    def _file(self, number: int) -> np.ndarray:
        """The tokens of one file; reading behind the end of a shrunk file would kill the process."""
        path, count = self.paths[number], self.counts[number]
        if number not in self._open:
            try:
                with open(path, "rb") as file:
                    mapped = np.memmap(file, self.dtype, "r", shape=(count,))
                    handle = os.dup(file.fileno())
            except (OSError, ValueError) as e:
                raise ValueError(
                    f"{path}: cannot be read any more ({e}): bring it back and run the same command again"
                ) from e
            self._open[number] = handle, np.asarray(mapped)
        handle, tokens = self._open[number]
        self._check_size(path, count, os.fstat(handle).st_size)
        return tokens

    def _check_size(self, path: pathlib.Path, count: int, size: int) -> None:
        wanted = count * self.dtype.itemsize
        if size != wanted:
            fault = "cut short" if size < wanted else "too long"
            raise ValueError(
                f"{path}: {size:,} bytes, the manifest says {wanted:,}: the file is {fault}; write or copy it again"
            )

    def __del__(self):
        for handle, _ in getattr(self, "_open", {}).values():
            os.close(handle)
