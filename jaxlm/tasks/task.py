"""What the training loop needs to know about a task: a record of data sets and functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen as nn

from jaxlm.config import DataConfig, ModelConfig, RunConfig, TransformerConfig
from jaxlm.data import shards, sources
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Dataset
from jaxlm.data.mixture import Mixture
from jaxlm.data.reading import Split, is_shards
from jaxlm.data.tokenizer import Tokenizer

Sums = dict[str, jax.Array]
Kind = TypeVar("Kind")


# text of one source or of several read as one
Text = sources.Documents | shards.ShardedText


@dataclasses.dataclass(frozen=True)
class Sources:
    """Texts that are read side by side, each with its share of the rows."""

    parts: tuple[Text, ...]
    names: tuple[str, ...]

    def describe(self) -> str:
        """What there is in each."""
        return "; ".join(f"{n}: {p.describe()}" for n, p in zip(self.names, self.parts))


@dataclasses.dataclass(frozen=True)
class Corpora:
    """The text of a run as it was read, before any tokenizer."""

    train: sources.Documents | sources.Labelled | Sources
    validation: sources.Documents | sources.Labelled | Sources | None
    # names of the classes, where there are any
    labels: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Everything that a tokenizer may be trained on."""
        if isinstance(self.train, Sources):
            parts = [p for p in self.train.parts if isinstance(p, sources.Documents)]
            return [text for part in parts for text in part.texts]
        return [*self.train.texts, *(getattr(self.train, "pairs", None) or [])]

    def describe(self) -> str:
        """One line: how much was read and what was left out."""
        line = f"train: {self.train.describe()}"
        if self.validation is not None:
            line += f"; validation: {self.validation.describe()}"
        return line


class Piece(NamedTuple):
    """A token of a row as people see it."""

    text: str
    # whether its prediction counts in the loss
    counts: bool = False
    # text of what is to be predicted there; None: the next piece
    target: str | None = None
    # whether another text of the row, or its padding, begins here
    begins: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its data and the functions between them.

    `loss(params, batch, key)` returns the weighted sum of the losses of a batch and a dict of further sums, "weight"
    among them, which divides it; `key` is None for evaluation. `summarize` turns sums over many batches into metrics.
    """

    model: nn.Module
    train: Dataset
    validation: Dataset | None
    loss: Callable[[Any, dict, jax.Array | None], tuple[jax.Array, Sums]]
    summarize: Callable[[dict[str, np.ndarray]], dict[str, float]]
    # the metric that decides which checkpoint is best, and whether less of it is better
    metric: str
    metric_is_lower: bool
    # share of the places at which logits of the vocabulary are computed
    output_share: float
    # one row as people see it
    preview: Callable[[dict[str, np.ndarray]], list[Piece]]
    # a text for people to look at during training, from (params, key)
    sample: Callable[[Any, jax.Array], str] | None = None
    # a second model in the head that reads every row too, for the FLOPs on paper
    generator: TransformerConfig | None = None
    # the scores of `summarize` laid out for people
    render: Callable[[dict[str, np.ndarray]], str] | None = None


def load_documents(config: RunConfig) -> Corpora:
    """The documents of a task that learns from plain text."""
    data = config.data
    validation = _text(data, "validation") if wants_validation(config) else None
    return Corpora(_text(data, "train"), validation)


def _text(data: DataConfig, split: Split) -> sources.Documents | Sources:
    """The text of a split: as one, or source by source where these are shards or have weights.

    Raises:
        ValueError: shards without a part that is held out, or documents of shards that are to be left out.
    """
    own = split == "validation" and bool(data.validation)
    names = data.validation if own else data.train
    weighted = not own and (bool(data.weights) or data.temperature != 1)
    if not weighted and not any(is_shards(name) for name in names):
        return sources.load_texts(data, split)
    for option in ("decontaminate", "max_documents"):
        if not own and getattr(data, option) and (folders := [*filter(is_shards, names)]):
            raise ValueError(
                f"data.{option} leaves out documents while text is tokenized, and {folders[0]} holds shards: give it "
                "to `jaxlm tokenize`"
            )
    plain = dataclasses.replace(data, weights=(), train=data.train[:1], temperature=1.0)
    parts: dict[str, Text] = {}
    for name in names:
        if is_shards(name):
            # of a folder that is there to validate with, what its text was for the most part
            part = shards.load(name, "train" if own else split)
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


def wants_validation(config: RunConfig) -> bool:
    """Whether the run has, or sets aside, anything to validate on."""
    return bool(config.data.validation) or config.data.validation_fraction > 0


def no_tokens(config: RunConfig) -> list[str]:
    """The `added_tokens` of a task that needs no control tokens beyond the usual ones."""
    return []


def datasets(
    config: RunConfig,
    corpora: Corpora,
    tokenizer: Tokenizer,
    make: Callable[[TokenDocuments, bool], Dataset],
) -> tuple[Dataset, Dataset | None]:
    """Training and validation rows: `make(documents, whether they are to train on)` of either split."""

    def rows(text: Any, training: bool) -> Dataset:
        documents = documents_of(text, tokenizer)
        parts = tuple(make(docs, training) for docs in documents)
        if len(parts) == 1:
            return parts[0]
        # validation reads every row once
        sizes = np.array([len(part) for part in parts], float)
        shares = _shares(config.data, [d.num_tokens for d in documents]) if training else sizes
        return Mixture(parts, text.names, tuple((shares / shares.sum()).tolist()), config.seed)

    train = rows(corpora.train, True)
    return train, None if corpora.validation is None else rows(corpora.validation, False)


def documents_of(text: Any, tokenizer: Tokenizer) -> list[TokenDocuments]:
    """The documents of a split as token ids, for each source that is read by itself."""
    parts = text.parts if isinstance(text, Sources) else (text,)
    return [part.token_documents(tokenizer) for part in parts]


def _shares(data: DataConfig, tokens: list[int]) -> np.ndarray:
    """What the training sources count: their weights, or how much they have, to the power of 1 / temperature."""
    return np.array(data.weights or tokens, float) ** (1 / data.temperature)


def need_roles(tokenizer: Tokenizer, name: str, *roles: str) -> None:
    """Raises ValueError if the tokenizer lacks a control token that the task `name` cannot do without."""
    for role in roles:
        if getattr(tokenizer, f"{role}_id") is None:
            raise ValueError(
                f"task {name} needs a tokenizer with a {role} token; this one has none"
            )


def need_model(model: ModelConfig, kind: type[Kind], name: str) -> Kind:
    """The model, of the kind that the task `name` trains; raises ValueError if it is of another."""
    if not isinstance(model, kind):
        words = {
            "EncoderConfig": "an encoder",
            "DecoderConfig": "a decoder",
            "EncoderDecoderConfig": "an encoder-decoder",
        }
        raise ValueError(
            f"task {name} needs {words[kind.__name__]}: set model to a {kind.__name__}"
        )
    return model


def begins(segment_ids: np.ndarray) -> np.ndarray:
    """Where in a row [T] another segment begins than that before, bool [T]."""
    return np.diff(segment_ids, prepend=segment_ids[:1]) != 0


def bos_before(tokenizer: Tokenizer) -> int | None:
    """What stands before a document: where one token is both bos and eos, as in GPT-2, only the eos behind it."""
    return tokenizer.bos_id if tokenizer.bos_id != tokenizer.eos_id else None


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return float(np.exp(loss)) if loss < 700 else float("inf")
