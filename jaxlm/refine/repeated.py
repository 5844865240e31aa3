"""Which of many hashes occur more than once, found by any number of tasks within bounded memory.

Three passes. Every task writes the hashes of its documents, divided into partitions by their high bits
(`HashWriter`). For each partition the hashes of all tasks are put together, sorted, and what is repeated is marked by a
bit in the order in which it was written (`find`). Every task then goes through its documents again and reads the bits
(`Repeats`). A partition is the only thing that has to fit into memory.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from jaxlm.refine.timing import Timer

# hashes in memory before they are written
_BUFFERED = 1 << 20
Keep = Literal["first", "none"]


def partition_bits(hashes: int, memory: int) -> int:
    """High bits that tell partitions apart, so that one of them is found within `memory` bytes (16 a hash)."""
    bits = max(0, (16 * hashes // memory).bit_length())
    return min(bits, 10)


def _path(folder: pathlib.Path, partition: int, task: int, kind: str) -> pathlib.Path:
    return folder / f"{partition:04d}" / f"{task:05d}.{kind}"


def _partition(hashes: np.ndarray, bits: int) -> np.ndarray:
    # a shift by 64 is not defined
    return (hashes >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(hashes), int)


class HashWriter:
    """The hashes of a task, in order."""

    def __init__(self, folder: pathlib.Path, task: int, bits: int) -> None:
        self._bits = bits
        self._paths = [_path(folder, p, task, "hashes") for p in range(1 << bits)]
        self._waiting: list[np.ndarray] = []
        self._count = 0
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".tmp").write_bytes(b"")

    def add(self, hashes: np.ndarray) -> None:
        """Takes the next hashes."""
        self._waiting.append(hashes)
        self._count += len(hashes)
        if self._count >= _BUFFERED:
            self._flush()

    def close(self) -> None:
        """Writes the rest; only then the files have their names."""
        self._flush()
        for path in self._paths:
            os.replace(path.with_suffix(".tmp"), path)

    def _flush(self) -> None:
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._waiting])
        self._waiting, self._count = [], 0
        partition = _partition(hashes, self._bits)
        # within a partition the order stays
        order = np.argsort(partition, kind="stable")
        ends = np.searchsorted(partition[order], np.arange(1, len(self._paths) + 1))
        for path, part in zip(self._paths, np.split(hashes[order], ends[:-1]), strict=True):
            if len(part):
                with open(path.with_suffix(".tmp"), "ab") as file:
                    part.tofile(file)


def find(folder: pathlib.Path, partition: int, keep: Keep) -> int:
    """Marks the repeated hashes of a partition, in all tasks' order.

    Args:
        folder: given to `HashWriter`.
        partition: its number.
        keep: "first": all but the first of equal hashes are marked; "none": that one too.

    Returns:
        Number of marked hashes.
    """
    tasks = sorted(folder.glob(f"{partition:04d}/*.hashes"))
    parts = [np.fromfile(path, np.uint64) for path in tasks]
    hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
    hashes.sort()
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    del hashes
    met = np.zeros(len(repeated), bool)
    marked = 0
    for path, part in zip(tasks, parts, strict=True):
        place = np.searchsorted(repeated, part)
        mask = np.zeros(len(part), bool)
        inside = place < len(repeated)
        mask[inside] = repeated[place[inside]] == part[inside]
        if keep == "first":
            # the first of this task, where no earlier task had it
            found, first = np.unique(place[mask], return_index=True)
            new = ~met[found]
            mask[np.flatnonzero(mask)[first[new]]] = False
            met[found] = True
        marked += int(mask.sum())
        temporary = path.with_suffix(".tmp")
        np.packbits(mask).tofile(temporary)
        os.replace(temporary, path.with_suffix(".repeats"))
    return marked


class HashDocuments(PipelineStep):
    """Writes the hashes of the documents that pass.

    Args:
        folder: given to `find`.
        bits: given to `HashWriter`.
        hashes_of: the hashes of a document, in order.
    """

    type = "refine"
    name = "hash documents"

    def __init__(
        self, folder: pathlib.Path, bits: int, hashes_of: Callable[[Document], np.ndarray]
    ) -> None:
        super().__init__()
        self.folder, self.bits, self.hashes_of = folder, bits, hashes_of

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # type: ignore[no-untyped-def]
        """Passes every document on."""
        writer = HashWriter(self.folder, rank, self.bits)
        timer = Timer(self.folder, "hash", rank)
        for document in data:
            with timer:
                writer.add(self.hashes_of(document))
            yield document
        with timer:
            writer.close()
        timer.close()


class Find(PipelineStep):
    """`find` as a step of datatrove; a task takes every world_size-th partition."""

    type = "refine"
    name = "find repeated hashes"

    def __init__(self, folder: pathlib.Path, bits: int, keep: Keep) -> None:
        super().__init__()
        self.folder, self.bits, self.keep = folder, bits, keep

    def run(self, data=None, rank: int = 0, world_size: int = 1):  # type: ignore[no-untyped-def]
        """Yields nothing."""
        timer = Timer(self.folder, "find", rank)
        with timer:
            for partition in range(rank, 1 << self.bits, world_size):
                find(self.folder, partition, self.keep)
        timer.close()
        return data


class Repeats:
    """Reads the marks of a task's hashes, asked for in the order in which they were written."""

    def __init__(self, folder: pathlib.Path, task: int, bits: int) -> None:
        self._bits = bits
        self._marks = []
        self._next = [0] * (1 << bits)
        for p in range(1 << bits):
            marks = np.fromfile(_path(folder, p, task, "repeats"), np.uint8)
            hashes = _path(folder, p, task, "hashes").stat().st_size // 8
            self._marks.append((marks, hashes))

    def take(self, hashes: np.ndarray) -> np.ndarray:
        """The marks of the next hashes, [N] bool."""
        partition = _partition(hashes, self._bits)
        result = np.zeros(len(hashes), bool)
        for p in np.unique(partition):
            chosen = np.flatnonzero(partition == p)
            (marks, count), begin = self._marks[p], self._next[p]
            end = begin + len(chosen)
            assert end <= count, "the documents are not those whose hashes were written"
            bits = np.unpackbits(marks[begin // 8 : -(-end // 8)])
            result[chosen] = bits[begin % 8 : begin % 8 + len(chosen)]
            self._next[p] = end
        return result
