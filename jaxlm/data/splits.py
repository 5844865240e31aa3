"""Splits the records of all sources into training and validation, so that no text is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from jaxlm.config.data import DataConfig
from jaxlm.data.bad_rows import BadRow, RowCounts
from jaxlm.data.columns import IDENTIFYING, Column, Record, identity, plain_text, text_roles
from jaxlm.data.overlap import Overlap
from jaxlm.data.reading import Split, read

# reason for skipping a training document
IN_EVALUATION = BadRow("shares 13 consecutive words with an evaluation text")


def evaluation_overlap(config: DataConfig, columns: Mapping[str, Column]) -> Overlap | None:
    """The runs of words in `data.decontaminate`, which training documents must not contain; None: no source is set.

    Uses all columns that have a text, and `data.pair_column`.
    """
    if not config.decontaminate:
        return None
    texts = {role: columns[role] for role in text_roles(columns)}
    if not texts:
        raise ValueError(
            "data.decontaminate compares words, and this task reads no text: leave it unset"
        )
    pair = config.pair_column
    if pair is not None and pair not in [column.name for column in texts.values()]:
        texts["pair"] = Column(pair, "text")
    return Overlap.of(
        text
        for source in config.decontaminate
        for record in read(source, config, columns=texts, split="validation")
        for role, column in texts.items()
        if record[role] is not None and (text := plain_text(record[role], column.kind)) is not None
    )


def in_validation(text: str, fraction: float) -> bool:
    """Whether a text is in the `fraction` that is held out; the same on every machine and in every run."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def is_held_out(
    text: str, record_id: str, source: str, config: DataConfig, *, from_validation: bool = False
) -> bool:
    """Whether a record is used for validation; `from_validation`: its source is one of `data.validation`."""
    if source.startswith("builtin:"):
        # hold out whole modules and topics, because texts of one module are similar
        return in_validation(record_id, config.validation_fraction)
    if config.validation:
        return from_validation
    # hash the text, so that duplicates are in the same split
    return in_validation(text, config.validation_fraction)


def holds_out(config: DataConfig) -> bool:
    """Whether validation examples are taken from the training sources."""
    return not config.validation and config.validation_fraction > 0


def divide(
    config: DataConfig, split: Split, columns: Mapping[str, Column], counts: RowCounts
) -> tuple[list[Record], list[Record]]:
    """The training and validation records of the sources that `split` needs.

    The hash of the first required column that has a text or a list of numbers determines the split of a record.

    Raises:
        ValueError: a source has no usable rows, or there is no such column.
    """
    comparable = [role for role, column in columns.items() if column.kind in IDENTIFYING]
    required = [role for role in comparable if columns[role].required]
    # a task may predict from either of two columns: then nothing is divided
    key = next(iter(required or (comparable if not holds_out(config) else [])), None)
    if key is None:
        raise ValueError(
            f"no required column of kind {', '.join(IDENTIFYING[:-1])} or {IDENTIFYING[-1]} among "
            f"{', '.join(columns)}: one is needed to split training from validation"
        )
    train: list[Record] = []
    validation: list[Record] = []
    wanted, other = (train, validation) if split == "train" else (validation, train)
    from_validation = split == "validation" and bool(config.validation)
    overlap = None if from_validation else evaluation_overlap(config, columns)
    read_split: Split = "validation" if from_validation else "train"
    names = config.validation if from_validation else config.train
    for i, source in enumerate(names):
        usable = 0
        for record in read(source, config, columns=columns, split=read_split, counts=counts):
            usable += 1
            value = record[key]
            text = record["id"] if value is None else identity(value, columns[key].kind)
            if overlap is not None and text in overlap:
                counts.skip(IN_EVALUATION, record["id"])
                continue
            held_out = is_held_out(
                text, record["id"], source, config, from_validation=from_validation
            )
            (validation if held_out else train).append(record)
            # a record of the other split is needed too, to check that neither is empty
            enough = config.max_documents is not None and len(wanted) >= config.max_documents
            if enough and (other or not holds_out(config)):
                counts.unread = names[i + 1 :]
                return train, validation
        if not usable:
            raise ValueError(f"{source}: no usable rows; {counts}")
    return train, validation


def choose(
    config: DataConfig, split: Split, train: list[Record], validation: list[Record]
) -> list[Record]:
    """The records of a split, at most `data.max_documents` of them.

    Raises:
        ValueError: there are none, although the configuration requires some.
    """
    records = train if split == "train" else validation
    if not records and (split == "train" or config.validation or config.validation_fraction > 0):
        raise ValueError(
            f"{', '.join(config.train)}: too few examples to hold out {config.validation_fraction:.0%} of them for "
            "validation; set a source in data.validation or change data.validation_fraction"
        )
    return records[: config.max_documents]
