"""Documents that contain a piece of the texts that models are evaluated on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

from datatrove.data import Document

from jaxlm.config.data import DataConfig
from jaxlm.data import reading
from jaxlm.data.columns import Column
from jaxlm.data.overlap import RUN, Overlap
from jaxlm.refine.rule import Drop, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontamination(Rule):
    """Drops documents that share a run of words with evaluation files, ignoring case and punctuation.

    An ideograph is a word. A text that has fewer words than a run is not looked for.
    """

    name: ClassVar[str] = "decontamination"
    source: ClassVar[str] = "Brown et al. 2020 (2005.14165), appendix C"

    # files as of `data.train`: .txt, .jsonl, .json, .csv, .tsv, .parquet, patterns, hub:<id>
    files: tuple[str, ...]
    # columns with the texts; every file has all of them
    columns: tuple[str, ...] = ("text",)
    # words in a run
    run: int = RUN
    # one text of a .txt file
    text_unit: Literal["file", "line", "paragraph"] = "file"

    def __post_init__(self):
        for field in ("files", "columns"):
            if isinstance(getattr(self, field), str) or not getattr(self, field):
                raise ValueError(f"{field}={getattr(self, field)!r} must be a tuple of strings")
        if self.run < 2:
            raise ValueError(f"run={self.run} must be at least 2")

    def check(self, document: Document) -> Drop | None:
        if document.text not in self._all:
            return None
        for file, overlap in self._by_file.items():
            if (words := overlap.shared(document.text)) is not None:
                return Drop("shared_run", f"{file}: {words[:300]}", f"no {self.run} words")
        raise AssertionError("the runs of all files are those of each")

    @functools.cached_property
    def _by_file(self) -> Mapping[str, Overlap]:
        """File -> its runs.

        Raises:
            ValueError: a file cannot be read, lacks a column, or has no text as long as a run.
        """
        config = DataConfig(text_column=self.columns[0], text_unit=self.text_unit)
        columns = {f"text{i}": Column(name, "text") for i, name in enumerate(self.columns)}
        by_file = {}
        for file in self.files:
            records = reading.read(file, config, columns=columns, split="validation")
            texts = (record[role] for record in records for role in columns)
            by_file[file] = Overlap.of(texts, self.run)
            if not by_file[file].runs:
                raise ValueError(
                    f"{file}: no text of column {' or '.join(self.columns)} has {self.run} words; lower run"
                )
        return by_file

    @functools.cached_property
    def _all(self) -> Overlap:
        runs = (overlap.runs for overlap in self._by_file.values())
        return Overlap(frozenset().union(*runs), self.run)
