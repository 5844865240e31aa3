"""Several data sets as one, each with a fixed fraction of the rows: sources by weight, kinds of corruption."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.data import counter
from jaxlm.data.loader import Batch, Dataset

_ORDER = 0x3D


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Data sets of the same shape; an epoch of the mixture has as many rows as all of them together.

    Row indices below the first part's count belong to the first part, and so on, so that a random order has the
    fractions in every batch on average. A part is read in epochs of its own, each in another order: every row once
    before any row twice, however large the part's fraction.
    """

    parts: tuple[Dataset, ...]
    names: tuple[str, ...]
    # fraction of the rows from each part; they sum to 1
    fractions: tuple[float, ...]
    seed: int

    @property
    def counts(self) -> np.ndarray:
        """Rows of each part in an epoch of the mixture, at least 1."""
        total = sum(map(len, self.parts))
        exact = np.array(self.fractions) * total
        counts = np.floor(exact).astype(np.int64)
        # the parts that lost most by rounding down get the remaining rows
        short = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
        counts[short] += 1
        return np.maximum(counts, 1)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def describe(self, examples: int) -> str:
        """A line for each part: its fraction, and how often `examples` rows of the mixture read it."""
        lines = []
        for part, name, count in zip(self.parts, self.names, self.counts):
            drawn = round(examples * count / len(self))
            lines.append(f"{count / len(self):.1%} {name}: {part.describe(drawn)}")
        return "\n".join(lines)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """The rows of the parts."""
        indices, epochs = np.asarray(indices, np.int64), np.asarray(epochs, np.int64)
        ends = np.cumsum(self.counts)
        owners = np.searchsorted(ends, indices, side="right")
        batch: Batch = {}
        for index in np.unique(owners):
            part, count = self.parts[index], self.counts[index]
            selected = np.flatnonzero(owners == index)
            sequence = epochs[selected] * count + indices[selected] - (ends[index] - count)
            own_epochs, positions = np.divmod(sequence, len(part))
            order = counter.permute(positions, len(part), self.seed, _ORDER, index, own_epochs)
            for name, x in part.rows(order, own_epochs).items():
                if name not in batch:
                    batch[name] = np.empty((len(indices), *x.shape[1:]), x.dtype)
                batch[name][selected] = x
        return batch
