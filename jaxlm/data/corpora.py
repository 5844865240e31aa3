"""The data of a run as it was read, before any tokenizer: documents, shards or records, in two splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlm.config.data import DataConfig
from jaxlm.data import records, shards, sources
from jaxlm.data.columns import Column, plain_text, text_roles
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.reading import Split, is_shards
from jaxlm.data.records import Records
from jaxlm.data.tokenizer import Tokenizer

# text of one source, or of several read as one
Text = sources.Documents | shards.ShardedText


@dataclasses.dataclass(frozen=True)
class Sources:
    """Texts that are read side by side, each for a fraction of the rows."""

    parts: tuple[Text, ...]
    names: tuple[str, ...]

    def describe(self) -> str:
        """One line: how much was read of each."""
        return "; ".join(f"{n}: {p.describe()}" for n, p in zip(self.names, self.parts))


# what one split holds
Part = sources.Documents | shards.ShardedText | Sources | Records


@dataclasses.dataclass(frozen=True)
class Corpora:
    """Training and validation data."""

    train: Part
    validation: Part | None
    # of records, by the task's names
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    # fraction of the training sources that is the validation data; None: it has sources of its own
    held_out: float | None = None

    def texts(self) -> Iterator[str]:
        """All training text that a tokenizer may be trained on; shards have a tokenizer already."""
        if isinstance(self.train, Records):
            for role in text_roles(self.columns):
                kind = self.columns[role].kind
                values = (x for x in self.train.columns[role] if x is not None)
                yield from (plain_text(x, kind) or "" for x in values)
            return
        parts = self.train.parts if isinstance(self.train, Sources) else (self.train,)
        for part in parts:
            if isinstance(part, sources.Documents):
                yield from part.texts

    def describe(self) -> str:
        """One line: how much was read and what was skipped."""
        line = f"train: {self.train.describe()}"
        if self.validation is not None:
            how = "" if self.held_out is None else f" ({self.held_out:.0%} held out)"
            line += f"; validation{how}: {self.validation.describe()}"
        return line


def load(data: DataConfig, columns: Mapping[str, Column]) -> Corpora:
    """The data that a config names: plain text without `columns`, else records with these columns."""
    read = (
        (lambda split: records.load_records(data, columns, split))
        if columns
        else (lambda split: _text(data, split))
    )
    validation = read("validation") if has_validation(data) else None
    held_out = data.validation_fraction if validation and not data.validation else None
    return Corpora(read("train"), validation, columns, held_out)


def has_validation(data: DataConfig) -> bool:
    """Whether validation data is named or held out."""
    return bool(data.validation) or data.validation_fraction > 0


def token_documents(text: Any, tokenizer: Tokenizer) -> list[TokenDocuments]:
    """The documents of a split as token ids, one entry for each source that is read by itself."""
    parts = text.parts if isinstance(text, Sources) else (text,)
    return [part.token_documents(tokenizer) for part in parts]


def _text(data: DataConfig, split: Split) -> sources.Documents | Sources:
    """The text of a split: as one, or source by source where these are shards or have weights.

    Raises:
        ValueError: shards without validation documents, or an option that would have to leave out documents of shards.
    """
    own = split == "validation" and bool(data.validation)
    names = data.validation if own else data.train
    weighted = not own and (bool(data.weights) or data.temperature != 1)
    if not weighted and not any(is_shards(name) for name in names):
        return sources.load_texts(data, split)
    for option in ("decontaminate", "max_documents"):
        if not own and getattr(data, option) and (folders := [*filter(is_shards, names)]):
            raise ValueError(
                f"data.{option} removes documents while text is tokenized, and {folders[0]} holds shards: give it "
                "to `jaxlm tokenize`"
            )
    plain = dataclasses.replace(data, weights=(), train=data.train[:1], temperature=1.0)
    parts: dict[str, Text] = {}
    for name in names:
        if is_shards(name):
            # a folder that is named for validation gives its training documents, which are most of it
            part = shards.load(name, "train" if own else split, data.verify_shards)
            if part is not None:
                parts[name] = part
        elif own:
            parts[name] = sources.load_texts(dataclasses.replace(plain, validation=(name,)), split)
        else:
            parts[name] = sources.load_texts(dataclasses.replace(plain, train=(name,)), split)
    if not parts:
        raise ValueError(
            f"{', '.join(names)}: the shards hold no {split} documents: set data.validation_fraction=0, or name "
            "a source in data.validation"
        )
    return Sources(tuple(parts.values()), tuple(parts))
