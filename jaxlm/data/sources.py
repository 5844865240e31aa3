"""Training and validation examples: all sources of a configuration, divided without leaks.

A source is read by `read`, row by row and checked; here its rows become the lists that tasks work on.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from jaxlm.config.data import DataConfig
from jaxlm.data.documents import TokenDocuments, tokenize
from jaxlm.data.formats import BadRow
from jaxlm.data.overlap import Overlap
from jaxlm.data.reading import Record, RowCounts, Split, read
from jaxlm.data.tokenizer import Tokenizer

__all__ = [
    "Documents",
    "Labelled",
    "RowCounts",
    "in_validation",
    "is_held_out",
    "load_labelled",
    "load_texts",
    "read",
]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Texts without labels, each with the place it comes from."""

    texts: list[str]
    ids: list[str]
    counts: RowCounts
    # by the tokenizer's fingerprint: rows of several lengths are cut from the same tokens
    _tokenized: dict[str, TokenDocuments] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.texts)

    def describe(self) -> str:
        """One line: how much was read and what was left out."""
        return f"{len(self):,} documents ({self.counts})"

    def token_documents(self, tokenizer: Tokenizer) -> TokenDocuments:
        """The documents as token ids, encoded at the first call."""
        key = tokenizer.fingerprint
        if key not in self._tokenized:
            self._tokenized[key] = tokenize(self.texts, tokenizer)
        return self._tokenized[key]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Texts, or pairs of texts, each with the name of its class and the place it comes from."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    ids: list[str]
    counts: RowCounts
    # as in Documents
    _tokenized: dict[str, tuple[list[np.ndarray], list[np.ndarray] | None]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.texts)

    def describe(self) -> str:
        """One line: how much was read and what was left out."""
        return f"{len(self):,} examples ({self.counts})"

    def token_ids(self, tokenizer: Tokenizer) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """The ids of each text and, of pairs, of each second text, encoded at the first call."""
        key = tokenizer.fingerprint
        if key not in self._tokenized:
            second = None if self.pairs is None else tokenizer.encode_batch(self.pairs)
            self._tokenized[key] = tokenizer.encode_batch(self.texts), second
        return self._tokenized[key]


def load_texts(config: DataConfig, split: Split) -> Documents:
    """The documents to train on or to validate with, at most `data.max_documents` of them.

    Validation documents are those of `data.validation`. Without it they are a share of the training documents, chosen
    by a hash of the text; where so few documents make this leave nothing on one side, the last part of each document.
    With `data.validation_fraction` 0 there are none.
    """
    counts = RowCounts()
    train, validation = _divided(config, split, (config.text_column,), counts)
    if _divides(config) and not (train and validation):
        parts = [_cut(record, config) for record in train + validation]
        train, validation = ([part for part in side if part] for side in zip(*parts))
    chosen = _chosen(config, split, train, validation)
    return Documents([r[config.text_column] for r in chosen], [r["id"] for r in chosen], counts)


def load_labelled(config: DataConfig, split: Split) -> Labelled:
    """The labelled examples to train on or to validate with; divided as in `load_texts`, but no text is cut."""
    counts = RowCounts()
    columns = [config.text_column, config.label_column]
    if config.pair_column is not None:
        columns.append(config.pair_column)
    chosen = _chosen(config, split, *_divided(config, split, tuple(columns), counts))
    texts, labels, *pairs, ids = ([record[c] for record in chosen] for c in (*columns, "id"))
    return Labelled(texts, pairs[0] if pairs else None, labels, ids, counts)


# why a training document is left out
IN_EVALUATION = BadRow("shares 13 words in a row with an evaluation text")


def evaluation_overlap(config: DataConfig) -> Overlap | None:
    """What training documents may not share with the sources of `data.decontaminate`; None: there are none."""
    if not config.decontaminate:
        return None
    columns = [config.text_column, *([config.pair_column] if config.pair_column else [])]
    return Overlap.of(
        record[column]
        for source in config.decontaminate
        for record in read(source, config, columns=tuple(columns), split="validation")
        for column in columns
    )


def in_validation(text: str, fraction: float) -> bool:
    """Whether a text is among the `fraction` that is held out: the same on every machine and in every run."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _divides(config: DataConfig) -> bool:
    """Whether validation examples are taken from the training sources."""
    return not config.validation and config.validation_fraction > 0


def _divided(
    config: DataConfig, split: Split, columns: tuple[str, ...], counts: RowCounts
) -> tuple[list[Record], list[Record]]:
    """The records to train on and those to validate with, of the sources that `split` needs.

    Raises:
        ValueError: a source without a usable row.
    """
    train: list[Record] = []
    validation: list[Record] = []
    wanted, other = (train, validation) if split == "train" else (validation, train)
    own = split == "validation" and bool(config.validation)
    overlap = None if own else evaluation_overlap(config)
    for source in config.validation if own else config.train:
        usable = 0
        for record in read(
            source, config, columns=columns, split="validation" if own else "train", counts=counts
        ):
            usable += 1
            if overlap is not None and record[config.text_column] in overlap:
                counts.skip(IN_EVALUATION, record["id"])
                continue
            held_out = is_held_out(record, source, config, own)
            (validation if held_out else train).append(record)
            # the other side is needed to know that the hash divides at all
            if len(wanted) == config.max_documents and (other or not _divides(config)):
                return train, validation
        if not usable:
            raise ValueError(f"{source}: no row can be used; {counts}")
    return train, validation


def is_held_out(record: Record, source: str, config: DataConfig, own: bool = False) -> bool:
    """Whether a record is to validate with; `own`: its source is one of `data.validation`."""
    if source.startswith(
        "builtin:"
    ):  # built-in text has parts of its own, of whole modules and topics
        return in_validation(record["id"], config.validation_fraction)
    if config.validation:
        return own
    # by the text, so that no copy of a training text is held out
    return in_validation(record[config.text_column], config.validation_fraction)


def _cut(record: Record, config: DataConfig) -> tuple[Record | None, Record | None]:
    """A document without its last part, and that part, cut at the end of a line if it has lines."""
    text = record[config.text_column]
    place = int(len(text) * (1 - config.validation_fraction))
    line = text.rfind("\n", 0, place) + 1
    head, tail = text[: line or place], text[line or place :]
    first, last = (
        {config.text_column: part, "id": record["id"] + name} if part.strip() else None
        for part, name in ((head, ""), (tail, " (last part)"))
    )
    return first, last


def _chosen(
    config: DataConfig, split: Split, train: list[Record], validation: list[Record]
) -> list[Record]:
    chosen = train if split == "train" else validation
    if not chosen and (split == "train" or config.validation or config.validation_fraction > 0):
        raise ValueError(
            f"{', '.join(config.train)}: too few examples to hold {config.validation_fraction:.0%} of them out for "
            "validation; name a source in data.validation or change data.validation_fraction"
        )
    return chosen[: config.max_documents]
