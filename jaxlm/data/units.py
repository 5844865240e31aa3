"""Units of privacy, and batches of them by Poisson sampling.

A unit is what the guarantee of differentially private training speaks of: a row, the text or record that several rows
are cut from, or a person with all of theirs. Each takes part in a step with the same probability, whatever the others
do (Abadi et al. 2016, 1607.00133, section 3.1), so that the number of units in a batch is random.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.data import counter
from jaxlm.data.loader import Batch, Dataset, with_valid

# labels of the two uses of the secret
_DRAW, _CHOOSE = 0, 1


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of a data set by number, each a small batch of its rows."""

    dataset: Dataset
    # row numbers, unit by unit [rows], and the exclusive end of each unit in them [units]
    order: np.ndarray
    ends: np.ndarray
    # rows of a unit that are read at a time, at most
    most: int
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, owners: np.ndarray, most: int, seed: int) -> Units:
        """The units of a data set.

        Args:
            dataset: of N rows.
            owners: a number for each row, the same for rows of the same unit [N].
            most: rows of a unit that are read at a time; of a unit that has more, they are drawn anew in each epoch.
            seed: of that draw.
        """
        order = np.argsort(owners, kind="stable")
        ends = np.flatnonzero(np.diff(owners[order], append=-1)) + 1
        largest = int(np.diff(ends, prepend=0).max())
        return cls(dataset, order, ends, min(most, largest), seed)

    def __len__(self) -> int:
        return len(self.ends)

    def describe(self, examples: int) -> str:
        """One line: how many units, of how many rows."""
        return f"{len(self):,} units of {len(self.order):,} rows, at most {self.most} of a unit in a step"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """Arrays [n, most, ...]: the rows of these units [n] as seen in `epochs` [n]; `exists` [n, most] is 0 for rows
        that only fill up a unit."""
        ends = self.ends[indices]
        starts = np.where(indices > 0, self.ends[indices - 1], 0)
        sizes = ends - starts
        # a place behind the unit's end is filled with its last row
        places = np.minimum(np.arange(self.most), sizes[:, None] - 1)
        for i in np.flatnonzero(sizes > self.most):
            keys = self.seed, _CHOOSE, epochs[i], indices[i]
            places[i] = counter.permute(places[i], int(sizes[i]), *keys)
        chosen = self.order[starts[:, None] + places]
        exists = (np.arange(self.most) < sizes[:, None]).astype(np.float32)
        rows = self.dataset.rows(chosen.ravel(), np.repeat(epochs, self.most))
        shaped = {name: x.reshape(*chosen.shape, *x.shape[1:]) for name, x in rows.items()}
        return {**shaped, "exists": exists}


@dataclasses.dataclass(frozen=True)
class PoissonBatchAt:
    """Batches of units, each of which is in a batch with the same probability; a pure function of the batch's number.

    Unit j of a batch is in slot (j % microbatch) * (slots / microbatch) + j // microbatch, so that the first microbatch
    is filled first and has rows of all devices; `valid` is 0 for empty slots. In the event that there are more units
    than slots the rest is left out; the caller chooses `slots` so that this hardly happens, and accounts for it.
    """

    units: Units
    # of each unit, in each batch
    probability: float
    # units that a batch has room for, a multiple of `microbatch`
    slots: int
    microbatch: int
    seed: int
    # which slots of the global batch; None: all
    rows: np.ndarray | None = None
    # number of the first batch
    start: int = 0

    def __call__(self, index: int) -> Batch:
        """Batch `start + index`: arrays [slots, ...]. A unit is seen in the epoch of that number."""
        step = self.start + index
        drawn = counter.uniform(self.seed, _DRAW, step, np.arange(len(self.units)))
        chosen = np.flatnonzero(drawn < self.probability)
        # those with the smallest numbers stay, which are a random part of them
        chosen = chosen[np.argsort(drawn[chosen])][: self.slots]
        j = np.arange(len(chosen))
        parts = self.slots // self.microbatch
        indices, valid = np.zeros(self.slots, np.int64), np.zeros(self.slots, bool)
        slot = (j % self.microbatch) * parts + j // self.microbatch
        indices[slot], valid[slot] = chosen, True
        mine = np.arange(self.slots) if self.rows is None else np.asarray(self.rows)
        batch = self.units.rows(indices[mine], np.full(len(mine), step))
        return with_valid(batch, valid[mine])
