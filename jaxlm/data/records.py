"""Examples with typed columns, for tasks that need more than plain text.

A task declares its columns (`Column`); `load_records` returns validated examples, split into training and validation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxlm.config.data import DataConfig
from jaxlm.data.bad_rows import BadRow, RowCounts
from jaxlm.data.columns import Column, Record
from jaxlm.data.reading import Split
from jaxlm.data.splits import choose, divide
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.data.values import Kind

__all__ = ["Column", "Kind", "Records", "load_records"]


@dataclasses.dataclass(frozen=True)
class Records:
    """Examples with typed columns, each with its source."""

    # role (the task's name for a column) -> values; None where an optional column is missing
    columns: dict[str, list[Any]]
    # file and line or row
    ids: list[str]
    counts: RowCounts
    # cache by role and tokenizer fingerprint, shared by rows of different lengths
    _tokenized: dict[tuple[str, str], list[np.ndarray]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(
        cls, records: Sequence[Record], columns: Iterable[str], counts: RowCounts | None = None
    ) -> Records:
        """Examples from checked rows, each with the values of these columns and its `id`."""
        values = {role: [record[role] for record in records] for role in columns}
        return cls(values, [record["id"] for record in records], counts or RowCounts())

    def __len__(self) -> int:
        return len(self.ids)

    def describe(self) -> str:
        """One line with the number of examples and of skipped rows."""
        return f"{len(self):,} examples ({self.counts})"

    def record(self, index: int) -> dict[str, Any]:
        """One example: its values by role, and `id`."""
        values = {role: values[index] for role, values in self.columns.items()}
        return {**values, "id": self.ids[index]}

    def take(self, indices: Iterable[int]) -> Records:
        """The examples at these indices, in their order."""
        indices = list(indices)
        columns = {role: [values[i] for i in indices] for role, values in self.columns.items()}
        taken = Records(columns, [self.ids[i] for i in indices], self.counts)
        for key, ids in self._tokenized.items():
            taken._tokenized[key] = [ids[i] for i in indices]
        return taken

    def without(self, bad: Mapping[int, BadRow], on_bad_row: Literal["error", "skip"]) -> Records:
        """The examples without the bad ones (index -> reason), which are counted as skipped, or an error.

        Raises:
            ValueError: there is one, and `on_bad_row` is "error".
        """
        for i, reason in bad.items():
            if on_bad_row == "error":
                raise ValueError(
                    f"{self.ids[i]}: {reason} (set data.on_bad_row=skip to skip such rows)"
                )
            self.counts.skip(reason, self.ids[i])
        return self.take(i for i in range(len(self)) if i not in bad) if bad else self

    def token_ids(self, role: str, tokenizer: Tokenizer) -> list[np.ndarray]:
        """The token ids of a text column; encoded on the first call and then cached.

        Raises:
            ValueError: a row has no text.
        """
        key = role, tokenizer.fingerprint
        if key not in self._tokenized:
            texts = self.columns[role]
            for value, where in zip(texts, self.ids):
                if value is None:
                    raise ValueError(f"{where}: no text in the column for role {role!r}")
                assert isinstance(value, str), f"{role} is not a text column"
            self._tokenized[key] = tokenizer.encode_batch(texts)
        return self._tokenized[key]


def load_records(config: DataConfig, columns: Mapping[str, Column], split: Split) -> Records:
    """The examples for training or validation, at most `data.max_documents` of them.

    They are split as in `sources.load_texts`, by a hash of the first required column of kind text, words or messages,
    but no example is truncated.

    Raises:
        ValueError: a source cannot be read, a row cannot be used and `data.on_bad_row` is "error", or a split is empty.
    """
    counts = RowCounts()
    records = choose(config, split, *divide(config, split, columns, counts))
    return Records.of(records, columns, counts)
