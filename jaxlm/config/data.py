"""Options of the data: sources, cleaning, tokenizer and row length."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.urls import refuse_other_url, refuse_url
from jaxlm.config.values import check_values

# processes of this machine that a setting may ask for
MOST_PROCESSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Text cleaning, stored in the tokenizer as its normalizer, so that inference applies it too."""

    # Unicode normalization form; nfkc also replaces full-width characters and ligatures
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    # remove control characters other than newline and tab
    strip_control: bool = True
    # replace runs of blanks by one; newlines are kept
    collapse_spaces: bool = False
    # convert to lower case
    lowercase: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer to load (`path`) or to train on the training sources (`kind`, `vocab_size`)."""

    # tokenizer.json, vocab.txt, or a folder that contains one; default: train a tokenizer
    path: str | None = None
    # kind of tokenizer to train; word: words are what stands between spaces, rare ones are <unk>
    kind: Literal["byte_bpe", "bpe", "wordpiece", "unigram", "char", "word"] = "byte_bpe"
    # maximum number of entries, special tokens included
    vocab_size: int = 8192
    # text cleaning of a trained tokenizer
    cleaning: CleaningConfig = dataclasses.field(default_factory=CleaningConfig)

    def __post_init__(self):
        check_values(self, "data.tokenizer")
        refuse_url(self.path, "data.tokenizer.path=")
        if self.vocab_size < 16:
            raise ValueError(f"data.tokenizer.vocab_size={self.vocab_size} must be at least 16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sources of training and validation examples.

    A source is a path or glob (.txt, .jsonl, .json, .csv, .tsv, .conll, each also .gz or .zst, .parquet, .npy, .npz),
    `hub:<id>` or `hub:<id>:<config>` for a data set of the Hugging Face hub, `builtin:<name>`, or a folder written by
    `jaxlm tokenize` (also `shards:<folder>`, and in a bucket: gs://bucket/folder, s3://bucket/folder).
    """

    # training sources
    train: tuple[str, ...] = ("builtin:python-docs",)
    # relative weight of each source in the training rows; default: its number of tokens
    weights: tuple[float, ...] = ()
    # weights are raised to the power of 1 / temperature: above 1, small sources are read more often
    temperature: float = 1.0
    # validation sources; default: validation_fraction of the training documents, chosen by a hash of each document
    validation: tuple[str, ...] = ()
    # fraction of the training documents held out for validation if there is no validation source
    validation_fraction: float = 0.05
    # tokenizer to load or to train
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    # tokens per row of a batch; for tasks that read no text, numbers per row
    seq_len: int = 256
    # column of the text, or of the first text of a pair
    text_column: str = "text"
    # column of the second text of a pair
    pair_column: str | None = None
    # column of the class
    label_column: str = "label"
    # one document of a .txt file: the file, a line, or a paragraph between blank lines
    text_unit: Literal["file", "line", "paragraph"] = "file"
    # column names of .csv and .tsv files without a header line
    columns: tuple[str, ...] | None = None
    # error: an invalid row stops the run with its file and line; skip: it is skipped and counted
    on_bad_row: Literal["error", "skip"] = "error"
    # evaluation sources: training documents that share 13 consecutive words with one of their texts are skipped
    decontaminate: tuple[str, ...] = ()
    # maximum number of documents; default: all
    max_documents: int | None = None
    # worker processes that prepare batches; 0: threads of this process
    workers: int = 0
    # compare every byte of token shards with its hash at the start; auto: where that takes seconds (2 GB)
    verify_shards: Literal["auto", "always"] = "auto"

    def __post_init__(self):
        check_values(self, "data")
        if not self.train:
            raise ValueError(
                "data.train has no source; give a path, hub:<id> or builtin:python-docs"
            )
        for name in ("train", "validation"):
            for source in getattr(self, name):
                # token shards may be in a bucket
                refuse_other_url(str(source), f"data.{name}: ")
        for source in self.decontaminate:
            refuse_url(str(source), "data.decontaminate: ")
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers for the {len(self.train)} sources of data.train"
            )
        for i, weight in enumerate(self.weights):
            if weight <= 0:
                raise ValueError(
                    f"data.weights[{i}]={weight} must be positive; remove {self.train[i]} from data.train instead"
                )
        if self.temperature <= 0:
            raise ValueError(f"data.temperature={self.temperature} must be positive")
        if self.temperature != 1 and len(self.train) == 1:
            raise ValueError("data.temperature has no effect with a single source: leave it unset")
        if self.seq_len < 2:
            raise ValueError(f"data.seq_len={self.seq_len} must be at least 2")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"data.validation_fraction={self.validation_fraction} is not in [0, 1)"
            )
        if self.workers < 0:
            raise ValueError(f"data.workers={self.workers} must not be negative")
        if self.workers > MOST_PROCESSES:
            raise ValueError(f"data.workers={self.workers} must be at most {MOST_PROCESSES:,}")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"data.max_documents={self.max_documents} must be at least 1")
