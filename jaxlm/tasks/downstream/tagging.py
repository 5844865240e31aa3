"""Tagging: a tag for each word, such as named entities as BIO tags or parts of speech.

A word's tag is read from its first token. A sentence that is longer than a row becomes several rows, windows that
overlap; each word counts in the one in which it has the most text around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DecoderConfig, EncoderConfig, RunConfig, TaskConfig
from jaxlm.data.frames import Frame
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks import scores
from jaxlm.tasks.downstream import counts, sentences, spans, texts, word_windows
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Predictions, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingConfig(TaskConfig):
    """Predict a tag for each word of a text: from a list of words with their tags, or a text with spans."""

    # tags in the order of the outputs; default: O and the sorted tags of the training data, B- and I- of each type
    labels: tuple[str, ...] = ()
    # columns of the words and of their tags; in CoNLL files the first and the last field
    words_column: str = "words"
    tags_column: str = "tags"
    # column of spans of data.text_column, read instead of words and tags
    spans_column: str | None = None
    # between two words where they are joined to a text; "" for Chinese and Japanese
    separator: str = " "
    # tokens that two windows of a long sentence share; default: 32, at most a quarter of data.seq_len
    overlap: int | None = None
    # dropout of the hidden states
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("dropout")
        if self.overlap is not None and self.overlap < 0:
            raise ValueError(f"task.overlap={self.overlap} must not be negative")


class Tagging(Task):
    """See `TaggingConfig`."""

    Config = TaggingConfig
    name = "tagging"
    metric = "f1"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig)
    roles = ("sep",)
    preview_legend = "the tag of a word follows its first token"

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """Words and tags, or a text and spans; to predict, words or a text."""
        return sentences.columns(config.task, config.data.text_column, purpose)

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> TaggingConfig:
        """Settings with the tags."""
        labels = settings.labels or spans.all_tags(sentences.used_tags(settings, records))
        if len(labels) < 2:
            raise ValueError(
                f"data.train has only the tag {labels[0]!r}: there is nothing to learn"
            )
        texts.check_names(labels, "task.labels")
        return dataclasses.replace(settings, labels=labels)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The sentences that can be tagged; others are errors with file and row, or skipped and counted."""
        return texts.usable(records, config, lambda i: sentences.fault(settings, records.record(i)))

    @classmethod
    def shorten(cls, settings: Any, seq_len: int, full_seq_len: int) -> TaggingConfig:
        """The settings with a shorter overlap."""
        overlap = settings.overlap and settings.overlap * seq_len // full_seq_len
        return dataclasses.replace(settings, overlap=overlap)

    def __init__(self, config: Any, tokenizer: Any):
        """See `Task`; the metric of single tags is their accuracy."""
        super().__init__(config, tokenizer)
        self.finds_spans = spans.is_span_scheme(self.labels)
        if not self.finds_spans:
            self.metric = "accuracy"  # type: ignore[misc]

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> TaggingConfig | None:
        """Settings for a classifier of tokens."""
        if type(model) is not heads.TokenClassifier:
            return None
        return TaggingConfig(labels=texts.class_names(about, model.num_classes))

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags."""
        return self.settings.labels

    def frame(self) -> Frame:
        """See `texts.frame`."""
        return texts.frame(self)

    def make_model(self) -> heads.TokenClassifier:
        """A classifier of tokens on the backbone."""
        return heads.TokenClassifier(
            self.backbone, len(self.labels), self.settings.dropout, self.config.compute
        )

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """A sentence per row, or several; word [n, T] is the index of a word at its first token, -1 elsewhere."""
        found = [sentences.sentence_of(self.settings, data.record(i)) for i in range(len(data))]
        length, overlap = self.config.data.seq_len, self.settings.overlap
        overlap = min(32, length // 4) if overlap is None else overlap
        rows = word_windows.rows(found, self.tokenizer, length, overlap)
        if purpose != "predict":
            records = enumerate(found)
            tags = [sentences.tags_of(self.settings, data.record(i), s) for i, s in records]
            rows = word_windows.with_labels(rows, tags, self.labels)
        return rows

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the tags at first tokens, and their confusion matrix."""
        classes = len(self.labels)
        logits = texts.logits(self, params, batch, context.dropout_key).reshape(-1, classes)
        weights = ((batch["word"] >= 0) * batch["valid"][:, None]).reshape(-1)
        labels = batch["labels"].reshape(-1)
        total = losses.class_cross_entropy(logits, labels, weights)
        pairs = labels * classes + jnp.argmax(logits, -1)
        confusion = jnp.zeros(classes**2).at[pairs].add(weights).reshape(classes, classes)
        return Loss(total, weights.sum(), sums={"confusion": confusion})

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss; of single tags also macro precision, recall and F1."""
        return means if self.finds_spans else {**means, **scores.summary(sums["confusion"])}

    def render(self, sums: dict[str, np.ndarray]) -> str:
        """Scores by tag, and the confusion matrix."""
        return scores.render(sums["confusion"], self.labels)

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The most likely tag of each token and its probability [B, T], and the index of the word that begins there."""
        p = jax.nn.softmax(texts.logits(self, params, batch, None), axis=-1)
        return {"tag": p.argmax(-1), "probability": p.max(-1), "word": batch["word"]}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """The tag of each word; of spans, `start` and `end` in `text`, label and mean probability of each."""
        sentence = sentences.sentence_of(self.settings, record)
        found, p = word_windows.joined(outputs, len(sentence.words))
        tags = spans.with_continued(
            [self.labels[i] if i >= 0 else None for i in found], self.labels
        )
        more = {"words": sentence.words.tolist()}
        if self.finds_spans:
            more = {"spans": sentences.spans_of(tags, p, sentence)}
        return {"text": sentence.text, "tags": tags, **more}

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """accuracy of all tags; of spans precision, recall, f1 and f1_<type>, as seqeval computes them."""
        true = sentences.all_tags(self.settings, records)
        result = spans.score(true, [p["tags"] for p in predictions])
        return result if self.finds_spans else {"accuracy": result["accuracy"]}

    def resample(
        self, predictions: Predictions, records: Records, draws: Iterable[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """As `score` without the types, from the counts of each sentence."""
        true = sentences.all_tags(self.settings, records)
        tags = [p["tags"] for p in predictions]
        return spans.resample(true, tags, draws, with_spans=self.finds_spans)

    def render_predictions(self, predictions: Predictions, records: Records) -> str | None:
        """Precision, recall and F1 of the spans of each type."""
        if not self.finds_spans:
            return None
        true = sentences.all_tags(self.settings, records)
        found = spans.count(true, [p["tags"] for p in predictions])
        return counts.render(*found, "type") if found[1] else None

    def preview(self, row: Batch) -> list[Piece]:
        """The tokens of a row, the first one of each word with its tag."""
        tags = [self.labels[i] if w >= 0 else None for w, i in zip(row["word"], row["labels"])]
        pieces = super().preview(row)
        return [
            piece if tag is None else piece._replace(counts=bool(row["valid"]), target=tag)
            for piece, tag in zip(pieces, tags)
        ]
