"""Batches as a pure function of their number, prefetched by grain's threads or worker processes.

Because batch n depends on (data set, seed, first example, n) alone, a run resumes by naming the example it stood at,
and any number of processes that each ask for their rows see the same global batch.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

import absl.flags
import grain
import numpy as np

from jaxlm.data import counter
from jaxlm.data.workers import end_with_parent

Batch = dict[str, np.ndarray]


class Dataset(Protocol):
    """Examples by number; pickled for worker processes."""

    def __len__(self) -> int:
        """Examples in an epoch."""
        ...

    def describe(self, examples: int) -> str:
        """For people: how many rows, how long, how full, and how often `examples` of them read each."""
        ...

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """The examples `indices` [n] as seen in `epochs` [n]: arrays [n, ...]. The loader adds `valid`."""
        ...


def times(examples: int, rows: int) -> str:
    """A text that says how often each row of a data set is read in `examples` examples."""
    return f"{examples:,} examples read each {examples / rows:.2f} times"


@dataclasses.dataclass(frozen=True)
class BatchAt:
    """Batches of rows of a data set, which is reshuffled in each epoch."""

    dataset: Dataset
    batch_size: int
    seed: int
    # which rows of the global batch; None: all
    rows: np.ndarray | None = None
    # index of the first example of batch 0 in the endless sequence
    start: int = 0

    def __call__(self, index: int) -> Batch:
        """Example c = start + index * batch_size + row of the endless sequence has index c % len in epoch c // len."""
        rows = np.arange(self.batch_size) if self.rows is None else np.asarray(self.rows)
        examples = self.start + index * self.batch_size + rows
        epochs, positions = np.divmod(examples, len(self.dataset))
        indices = counter.permute(positions, len(self.dataset), self.seed, epochs)
        return with_valid(self.dataset.rows(indices, epochs), np.ones(len(indices), bool))


def with_valid(batch: Batch, valid: np.ndarray) -> Batch:
    """The batch and its example mask: `valid` [n] float32, 0 for rows that only fill up the batch."""
    return {**batch, "valid": valid.astype(np.float32)}


class Loader:
    """Endless iterator over the local batches from example `start` of the endless sequence on."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        rows: np.ndarray | None = None,
        workers: int = 0,
        start: int = 0,
    ):
        if len(dataset) < 1:
            raise ValueError("the data set has no examples: nothing to train on")
        self._begin(BatchAt(dataset, batch_size, seed, rows, start), workers)

    @classmethod
    def of(cls, batch_at: Callable[[int], Batch], workers: int = 0) -> Loader:
        """An iterator over the batches 0, 1, ... of any pure function of their numbers."""
        loader = cls.__new__(cls)
        loader._begin(batch_at, workers)
        return loader

    def _begin(self, batch_at: Callable[[int], Batch], workers: int) -> None:
        self.batch_at = batch_at
        numbered = grain.MapDataset.range(0, 2**62).map(batch_at)
        if workers == 0:
            batches = numbered.to_iter_dataset(
                grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
            )
        else:
            # grain reads absl's flags, which only absl programs parse
            if not absl.flags.FLAGS.is_parsed():
                absl.flags.FLAGS.mark_as_parsed()
            batches = numbered.to_iter_dataset(
                grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
            ).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
                _start_worker,
            )
        # in a list that is emptied before the interpreter ends: grain's iterators complain if they outlive it
        self._open = [iter(batches)]
        self._finalizer = weakref.finalize(self, _close, self._open)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._open:
            raise StopIteration
        return next(self._open[0])

    def close(self) -> None:
        """Stops threads and worker processes, which also happens when the loader is forgotten."""
        self._finalizer()


def _start_worker(index: int, count: int) -> None:
    end_with_parent()


def _close(iterators: list) -> None:
    while iterators:
        iterators.pop().close()


def evaluation_batches(
    dataset: Dataset, batch_size: int, rows: np.ndarray | None = None, limit: int | None = None
) -> Iterator[Batch]:
    """One pass in order; the last batch is filled up with examples whose `valid` is 0.

    With a `limit` below the number of batches, a fixed random sample of that many batches instead: the first rows of a
    file may all be of one kind.
    """
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    for indices, valid in evaluation_indices(len(dataset), batch_size, limit):
        batch = dataset.rows(indices[rows], np.zeros(len(rows), np.int64))
        yield with_valid(batch, valid[rows])


def evaluation_indices(
    size: int, batch_size: int, limit: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The examples of each batch of `evaluation_batches`, and which of them are no filling: [batch_size] each."""
    num_batches = -(-size // batch_size)
    count = num_batches if limit is None else min(limit, num_batches)
    for step in range(count):
        indices = step * batch_size + np.arange(batch_size)
        if count < num_batches:
            indices = counter.permute(indices, size, 0)
        yield indices % size, indices < size
