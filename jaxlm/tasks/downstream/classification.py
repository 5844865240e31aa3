"""Classification: name the class of a text, or of a pair of texts."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import (
    ClassificationConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    RunConfig,
)
from jaxlm.data import sources
from jaxlm.data.formats import BadRow
from jaxlm.data.loader import Batch, times
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks import scores, task
from jaxlm.tasks.task import Corpora, Piece, Sums, Task

added_tokens = task.no_tokens


def load(config: RunConfig) -> Corpora:
    """The labelled texts of the run, and the names of their classes.

    Raises:
        ValueError: a label that is not a class, unless such rows are skipped.
    """
    assert isinstance(config.task, ClassificationConfig)
    train = sources.load_labelled(config.data, "train")
    names = config.task.labels or tuple(sorted(set(train.labels), key=_natural))
    if len(names) < 2:
        where = "task.labels" if config.task.labels else "data.train"
        raise ValueError(f"{where} has only the label {names[0]!r}: nothing to tell apart")
    validation = None
    if task.wants_validation(config):
        validation = _known(sources.load_labelled(config.data, "validation"), names, config)
    return Corpora(_known(train, names, config), validation, names)


@dataclasses.dataclass(frozen=True)
class LabelledRows:
    """One text or pair a row: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], cut to length and padded."""

    tokens: np.ndarray
    token_types: np.ndarray
    segment_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self, examples: int) -> str:
        """One line for people."""
        full = (self.segment_ids > 0).mean()
        size = f"{len(self):,} rows of {self.tokens.shape[1]} tokens, {full:.1%} full"
        return f"{size}; {times(examples, len(self))}"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, token_types, segment_ids [n, T]; labels, weights [n]. The same in every epoch."""
        rows = {f.name: getattr(self, f.name)[indices] for f in dataclasses.fields(self)}
        return {**rows, "weights": np.ones(len(indices), np.float32)}


def lay(
    first: list[np.ndarray], second: list[np.ndarray] | None, tokenizer: Tokenizer, seq_len: int
) -> dict[str, np.ndarray]:
    """tokens, token_types and segment_ids [n, seq_len] int32 of texts or pairs; the longer of two is cut first."""
    shape = (len(first), seq_len)
    tokens = np.full(shape, tokenizer.pad_id or 0, np.int32)
    token_types, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for i, (a, b) in enumerate(itertools.zip_longest(first, second or [])):
        room = seq_len - (2 if b is None else 3)
        if b is not None:
            keep_b = min(len(b), max(room - len(a), room // 2))
            a, b = a[: room - keep_b], b[:keep_b]
        row = [tokenizer.cls_id, *a[:room], tokenizer.sep_id]
        head = len(row)
        row += [] if b is None else [*b, tokenizer.sep_id]
        tokens[i, : len(row)] = row
        token_types[i, head : len(row)] = 1
        segment_ids[i, : len(row)] = 1
    return {"tokens": tokens, "token_types": token_types, "segment_ids": segment_ids}


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the labelled texts of `corpora`."""
    settings = config.task
    assert isinstance(settings, ClassificationConfig)
    task.need_roles(tokenizer, "classification", "cls", "sep")
    names = corpora.labels
    number = {name: i for i, name in enumerate(names)}
    classifier = make_model(config, model, len(names))

    def rows(split) -> LabelledRows:
        first, second = split.token_ids(tokenizer)
        encoded = lay(first, second, tokenizer, config.data.seq_len)
        labels = np.array([number[label] for label in split.labels], np.int32)
        return LabelledRows(**encoded, labels=labels)

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        logits: Any = classifier.apply({"params": params}, **model_inputs(model, batch), key=key)
        smoothing = settings.label_smoothing if key is not None else 0.0
        total = losses.class_cross_entropy(
            logits, batch["labels"], batch["weights"], label_smoothing=smoothing
        )
        pairs = batch["labels"] * len(names) + jnp.argmax(logits, -1)
        confusion = jnp.zeros(len(names) ** 2).at[pairs].add(batch["weights"])
        confusion = confusion.reshape(len(names), len(names))
        weight = batch["weights"].sum()
        return total, {"loss": total, "confusion": confusion, "weight": weight}

    def summarize(sums: dict[str, np.ndarray]) -> dict[str, float]:
        return {"loss": float(sums["loss"] / sums["weight"]), **scores.summary(sums["confusion"])}

    return Task(
        model=classifier,
        train=rows(corpora.train),
        validation=rows(corpora.validation) if corpora.validation else None,
        loss=loss,
        summarize=summarize,
        output_share=0.0,
        metric="accuracy",
        metric_is_lower=False,
        preview=lambda row: preview(row, tokenizer, names),
        render=lambda sums: scores.render(sums["confusion"], names),
    )


def make_model(config: RunConfig, model: ModelConfig, num_classes: int) -> heads.Classifier:
    """The classifier that the config asks for on a backbone."""
    settings = config.task
    assert isinstance(settings, ClassificationConfig)
    pooling: str = settings.pooling
    if pooling == "auto":
        kinds = {DecoderConfig: "last", EncoderConfig: "first", EncoderDecoderConfig: "mean"}
        pooling = kinds[type(model)]
    return heads.Classifier(model, num_classes, pooling, settings.dropout, config.compute)


def model_inputs(model: ModelConfig, batch: dict) -> dict:
    """What of a batch goes into the classifier."""
    names = ["tokens", "segment_ids"]
    if isinstance(model, EncoderConfig):
        names.append("token_types")
    return {name: batch[name] for name in names}


def _natural(label: str) -> tuple:
    """Sorts "10" after "9" and numbers before words."""
    return (0, int(label), "") if label.lstrip("-").isdigit() else (1, 0, label)


def _known(split: sources.Labelled, names: tuple[str, ...], config: RunConfig) -> sources.Labelled:
    """The examples whose label is a class; others are an error with their place, or left out and counted."""
    known = [i for i, label in enumerate(split.labels) if label in names]
    for i in sorted(set(range(len(split))) - set(known)):
        label, where = split.labels[i], split.ids[i]
        near = difflib.get_close_matches(label, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"classes: {', '.join(names[:20])}"
        if config.data.on_bad_row == "error":
            raise ValueError(f"{where}: unknown label {label!r}; {hint}")
        split.counts.skip(BadRow("unknown label", f"{label!r}; {hint}"), where)
    columns = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    kept: dict[str, Any] = {
        k: [v[i] for i in known] for k, v in columns.items() if isinstance(v, list)
    }
    return dataclasses.replace(split, **kept)


def preview(
    row: dict[str, np.ndarray], tokenizer: Tokenizer, names: tuple[str, ...]
) -> list[Piece]:
    """The text of a row, and its class at the end."""
    real = row["tokens"][row["segment_ids"] > 0]
    pieces = [Piece(tokenizer.decode([int(i)], skip_special=False)) for i in real]
    return [*pieces, Piece("=>", bool(row["weights"]), names[int(row["labels"])])]
