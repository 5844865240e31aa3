"""Where text comes from, how it is cleaned and split into tokens."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Text cleaning, written into the tokenizer as its normaliser, so that it is never forgotten at inference."""

    # Unicode normal form: nfc keeps meaning, nfkc also folds full-width and ligature forms
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    # drop control characters other than newline and tab
    strip_control: bool = True
    # runs of blanks become one; newlines are kept
    collapse_spaces: bool = False
    # lower case everywhere
    lowercase: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer to load (`path`) or to train on the training sources (`kind`, `vocab_size`)."""

    # tokenizer.json, vocab.txt, or a folder that holds one; nothing: train one
    path: str | None = None
    # what kind to train
    kind: Literal["byte_bpe", "bpe", "wordpiece", "unigram", "char"] = "byte_bpe"
    # at most so many entries, special tokens included
    vocab_size: int = 8192
    # cleaning of the text, of a tokenizer that is trained
    cleaning: CleaningConfig = dataclasses.field(default_factory=CleaningConfig)

    def __post_init__(self):
        if self.vocab_size < 16:
            raise ValueError(f"data.tokenizer.vocab_size={self.vocab_size} must be at least 16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sources of training and validation examples.

    A source is a path or glob (.txt, .jsonl, .json, .csv, .tsv, .conll, each also .gz or .zst, .parquet), `hub:<id>`
    or `hub:<id>:<config>` for a data set of the Hugging Face hub, `builtin:<name>`, or a folder that `jaxlm tokenize`
    wrote (also `shards:<folder>`).
    """

    # sources to train on
    train: tuple[str, ...] = ("builtin:python-docs",)
    # share of the training rows that each source gives, in any unit; nothing: as much as it has
    weights: tuple[float, ...] = ()
    # shares become those to the power of 1 / temperature: above 1, small sources are read more often
    temperature: float = 1.0
    # nothing: validation_fraction of the training documents, chosen by a hash of each document
    validation: tuple[str, ...] = ()
    # share of the training documents that is set aside where no validation source is named
    validation_fraction: float = 0.05
    # the tokenizer to load or to train
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    # tokens in one row of a batch
    seq_len: int = 256
    # column of the text (of the first text of a pair)
    text_column: str = "text"
    # column of the second text of a pair
    pair_column: str | None = None
    # column of the class
    label_column: str = "label"
    # what one document is in a .txt file: the file, a line, or a paragraph between blank lines
    text_unit: Literal["file", "line", "paragraph"] = "file"
    # names of the columns of a .csv or .tsv that has no header line
    columns: tuple[str, ...] | None = None
    # a broken row stops the run with its file and line, or is left out and counted
    on_bad_row: Literal["error", "skip"] = "error"
    # evaluation sources: training documents that share 13 words in a row with one of their texts are left out
    decontaminate: tuple[str, ...] = ()
    # use only the first so many documents
    max_documents: int | None = None
    # worker processes that prepare batches; 0: threads of this process
    workers: int = 0

    def __post_init__(self):
        if not self.train:
            raise ValueError(
                "data.train names no source; give a path, hub:<id> or builtin:python-docs"
            )
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers for the {len(self.train)} sources of data.train"
            )
        for i, weight in enumerate(self.weights):
            if weight <= 0:
                raise ValueError(
                    f"data.weights[{i}]={weight} must be positive; leave {self.train[i]} out of data.train instead"
                )
        if self.temperature <= 0:
            raise ValueError(f"data.temperature={self.temperature} must be positive")
        if self.temperature != 1 and len(self.train) == 1:
            raise ValueError("data.temperature has no effect with a single source: leave it out")
        if self.seq_len < 2:
            raise ValueError(f"data.seq_len={self.seq_len} must be at least 2")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"data.validation_fraction={self.validation_fraction} is not in [0, 1)"
            )
        if self.workers < 0:
            raise ValueError(f"data.workers={self.workers} must not be negative")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"data.max_documents={self.max_documents} must be at least 1")
