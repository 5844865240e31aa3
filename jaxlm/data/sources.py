"""Training and validation examples: all sources of a configuration, divided without leaks.

Sources are read row by row in `reading` and divided in `splits`; here the rows become lists that tasks work on.
"""

from __future__ import annotations

import dataclasses

from jaxlm.config.data import DataConfig
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.columns import Column, Record
from jaxlm.data.documents import TokenDocuments, tokenize
from jaxlm.data.reading import Split
from jaxlm.data.splits import choose, divide, holds_out
from jaxlm.data.tokenizer import Tokenizer


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
        """One line: how much was read and what was skipped."""
        return f"{len(self):,} documents ({self.counts})"

    def token_documents(self, tokenizer: Tokenizer) -> TokenDocuments:
        """The documents as token ids, encoded at the first call."""
        key = tokenizer.fingerprint
        if key not in self._tokenized:
            self._tokenized[key] = tokenize(self.texts, tokenizer)
        return self._tokenized[key]


def load_texts(config: DataConfig, split: Split) -> Documents:
    """The documents to train on or to validate with, at most `data.max_documents` of them.

    Validation documents are those of `data.validation`. Without it they are a fraction of the training documents,
    chosen by a hash of the text; where there are so few documents that this leaves nothing on one side, the last part
    of each document is held out. With `data.validation_fraction` 0 there are none.
    """
    counts = RowCounts()
    train, validation = divide(config, split, text_columns(config), counts)
    if holds_out(config) and not (train and validation):
        parts = [_cut(record, config) for record in train + validation]
        train, validation = ([part for part in side if part] for side in zip(*parts))
    records = choose(config, split, train, validation)
    return Documents([r["text"] for r in records], [r["id"] for r in records], counts)


def text_columns(config: DataConfig) -> dict[str, Column]:
    """What plain documents are read from."""
    return {"text": Column(config.text_column, "text")}


def _cut(record: Record, config: DataConfig) -> tuple[Record | None, Record | None]:
    """A document without its last part, and that part, cut at the end of a line if it has lines."""
    text = record["text"]
    cut = int(len(text) * (1 - config.validation_fraction))
    cut = (text.rfind("\n", 0, cut) + 1) or cut
    first, last = (
        {"text": part, "id": record["id"] + suffix} if part.strip() else None
        for part, suffix in ((text[:cut], ""), (text[cut:], " (last part)"))
    )
    return first, last
