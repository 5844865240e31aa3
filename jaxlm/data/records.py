"""Examples with typed columns, for tasks that learn from more than plain text.

A task says which columns it reads (`Column`); `load_records` gives them checked, divided into training and validation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxlm.config.data import DataConfig
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.columns import Column, Kind
from jaxlm.data.reading import Split
from jaxlm.data.splits import choose, divide
from jaxlm.data.tokenizer import Tokenizer

__all__ = ["Column", "Kind", "Records", "load_records"]


@dataclasses.dataclass(frozen=True)
class Records:
    """Examples with typed columns, each with the place that it comes from."""

    # role (the task's own name for a column) -> values; None where a row lacks a column that is not required
    columns: dict[str, list[Any]]
    # file and line or row
    ids: list[str]
    counts: RowCounts
    # by role and the tokenizer's fingerprint: rows of several lengths are cut from the same tokens
    _tokenized: dict[tuple[str, str], list[np.ndarray]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.ids)

    def describe(self) -> str:
        """One line: how much was read and what was skipped."""
        return f"{len(self):,} examples ({self.counts})"

    def record(self, index: int) -> dict[str, Any]:
        """One example: its values by role, and `id`."""
        values = {role: values[index] for role, values in self.columns.items()}
        return {**values, "id": self.ids[index]}

    def take(self, indices: Iterable[int]) -> Records:
        """The examples at these indices, in their order."""
        indices = list(indices)
        columns = {role: [values[i] for i in indices] for role, values in self.columns.items()}
        return Records(columns, [self.ids[i] for i in indices], self.counts)

    def token_ids(self, role: str, tokenizer: Tokenizer) -> list[np.ndarray]:
        """The token ids of a column of texts, encoded at the first call.

        Raises:
            ValueError: a row lacks the text.
        """
        key = role, tokenizer.fingerprint
        if key not in self._tokenized:
            texts = self.columns[role]
            for value, where in zip(texts, self.ids):
                if value is None:
                    raise ValueError(f"{where}: no text in the column that is read as {role!r}")
                assert isinstance(value, str), f"{role} is not a column of texts"
            self._tokenized[key] = tokenizer.encode_batch(texts)
        return self._tokenized[key]


def load_records(config: DataConfig, columns: Mapping[str, Column], split: Split) -> Records:
    """The examples to train on or to validate with, at most `data.max_documents` of them.

    They are divided as in `sources.load_texts`, by a hash of the first required column of text, words or messages, but
    no example is cut.

    Raises:
        ValueError: a source cannot be read, a row cannot be used and `data.on_bad_row` is "error", or a side is empty.
    """
    counts = RowCounts()
    records = choose(config, split, *divide(config, split, columns, counts))
    values = {role: [record[role] for record in records] for role in columns}
    return Records(values, [record["id"] for record in records], counts)
