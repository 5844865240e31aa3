"""Classification: the class of a text, or of a pair of texts."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    RunConfig,
    TaskConfig,
)
from jaxlm.data.formats import BadRow
from jaxlm.data.frames import Frame
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks import scores
from jaxlm.tasks.task import Context, Loss, Piece, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TaskConfig):
    """Predict the class of a text or of a pair of texts."""

    # class names in the order of the outputs; default: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # hidden state that the head reads: of the first token, of the last token, or the mean of all; auto: first for
    # encoders, last for decoders, mean of the encoder for encoder-decoders
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    # dropout of the pooled vector
    dropout: float = 0.1
    # fraction of the target distributed evenly over the classes
    label_smoothing: float = 0.0


class Classification(Task):
    """See `ClassificationConfig`."""

    Config = ClassificationConfig
    name = "classification"
    metric = "accuracy"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig, EncoderDecoderConfig)
    roles = ("cls", "sep")
    preview_legend = "the class to predict follows the arrow"
    padded = ("tokens", "token_types", "segment_ids")

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """A text, optionally a second one, and the label."""
        data = config.data
        columns = {"text": Column(data.text_column, "text")}
        if data.pair_column is not None:
            columns["pair"] = Column(data.pair_column, "text")
        columns["label"] = Column(data.label_column, "label", required=purpose != "predict")
        return columns

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> ClassificationConfig:
        """Settings with class names."""
        labels = settings.labels or tuple(sorted(set(records.columns["label"]), key=_natural))
        if len(labels) < 2:
            where = "task.labels" if settings.labels else "data.train"
            raise ValueError(f"{where} has only the label {labels[0]!r}: at least two are needed")
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"task.labels has {twice!r} twice")
        return dataclasses.replace(settings, labels=labels)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The examples whose label is a class; others are errors with file and row, or skipped and counted."""
        known = []
        for i, label in enumerate(records.columns["label"]):
            if label is None or label in settings.labels:
                known.append(i)
                continue
            near = difflib.get_close_matches(label, settings.labels, 1)
            hint = f"did you mean {near[0]!r}?" if near else None
            hint = hint or f"classes: {', '.join(settings.labels[:20])}"
            if config.data.on_bad_row == "error":
                raise ValueError(f"{records.ids[i]}: unknown label {label!r}; {hint}")
            records.counts.skip(BadRow("unknown label", f"{label!r}; {hint}"), records.ids[i])
        return records if len(known) == len(records) else records.take(known)

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> ClassificationConfig | None:
        """Settings for a classifier whose outputs are the logits of one class."""
        single = about.get("problem_type") in (None, "single_label_classification")
        if not isinstance(model, heads.Classifier) or model.num_classes < 2 or not single:
            return None
        pooling: Any = model.pooling
        return ClassificationConfig(labels=class_names(about, model.num_classes), pooling=pooling)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.settings.labels

    def make_model(self) -> heads.Classifier:
        """A classifier on the backbone."""
        pooling: str = self.settings.pooling
        if pooling == "auto":
            kinds = {DecoderConfig: "last", EncoderConfig: "first", EncoderDecoderConfig: "mean"}
            pooling = kinds[type(self.backbone)]
        return heads.Classifier(
            self.backbone, len(self.labels), pooling, self.settings.dropout, self.config.compute
        )

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """One text or pair per row: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], truncated and padded."""
        first = data.token_ids("text", self.tokenizer)
        second = data.token_ids("pair", self.tokenizer) if "pair" in data.columns else None
        arrays = text_arrays(first, second, self.tokenizer, self.config.data.seq_len)
        if purpose != "predict":
            index = {name: i for i, name in enumerate(self.labels)}
            arrays["labels"] = np.array([index[x] for x in data.columns["label"]], np.int32)
        return ArrayRows(arrays)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the class, and the confusion matrix."""
        logits = self._logits(params, batch, context.dropout_key)
        total = losses.class_cross_entropy(
            logits,
            batch["labels"],
            batch["valid"],
            label_smoothing=self.settings.label_smoothing if context.train else 0.0,
        )
        classes = len(self.labels)
        pairs = batch["labels"] * classes + jnp.argmax(logits, -1)
        confusion = jnp.zeros(classes**2).at[pairs].add(batch["valid"])
        return Loss(
            total, batch["valid"].sum(), sums={"confusion": confusion.reshape(classes, classes)}
        )

    def _logits(self, params: Any, batch: dict, key: jax.Array | None) -> jax.Array:
        names = ["tokens", "segment_ids"]
        # RoBERTa has a single type: there is no second one to give to the second text
        if isinstance(self.backbone, EncoderConfig) and self.backbone.num_token_types > 1:
            names.append("token_types")
        inputs = {name: batch[name] for name in names}
        return self.model.apply({"params": params}, **inputs, key=key)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss, accuracy, macro precision, recall and F1, and Matthews correlation."""
        return {**means, **scores.summary(sums["confusion"])}

    def render(self, sums: dict[str, np.ndarray]) -> str:
        """Scores by class, and the confusion matrix."""
        return scores.render(sums["confusion"], self.labels)

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """Probabilities of the classes [B, C]."""
        return {"probabilities": jax.nn.softmax(self._logits(params, batch, None), axis=-1)}

    def read(
        self, outputs: Sequence[Mapping[str, np.ndarray]], record: dict[str, Any]
    ) -> dict[str, Any]:
        """See `prediction`."""
        return prediction(outputs[0]["probabilities"], self.labels)

    def resample(
        self, predictions: Sequence[dict[str, Any]], records: Records, draws: Iterable[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The scores of resampled examples, from their confusion matrices."""
        index = {name: i for i, name in enumerate(self.labels)}
        predicted = np.array([index[p["label"]] for p in predictions])
        pairs = np.array([index[x] for x in records.columns["label"]]) * len(index) + predicted
        counts = [np.bincount(pairs[draw], minlength=len(index) ** 2) for draw in draws]
        found = [scores.summary(count.reshape(len(index), -1).astype(float)) for count in counts]
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    def preview(self, row: Batch) -> list[Piece]:
        """The text of a row, followed by its class."""
        label = self.labels[int(row["labels"])]
        return [*super().preview(row), Piece("=>", bool(row["valid"]), label)]


def class_names(about: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The names of the classes in a config.json, in the order of the outputs; numbers if it has none."""
    names = {int(i): str(name) for i, name in (about.get("id2label") or {}).items()}
    return tuple(names.get(i, str(i)) for i in range(count))


def prediction(p: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """{"label": the most likely class, "probability": its probability, "probabilities": {class: probability}}."""
    best = int(p.argmax())
    return {
        "label": labels[best],
        "probability": round(float(p[best]), 6),
        "probabilities": {name: round(float(x), 6) for name, x in zip(labels, p)},
    }


def text_arrays(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray] | None,
    tokenizer: Tokenizer,
    seq_len: int,
) -> dict[str, np.ndarray]:
    """tokens, token_types and segment_ids [n, seq_len] int32 of texts or pairs; the longer of a pair is cut first."""
    shape = (len(first), seq_len)
    tokens = np.full(shape, tokenizer.pad_id or 0, np.int32)
    token_types, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    frame = tokenizer.frame
    if frame is None:
        assert tokenizer.cls_id is not None and tokenizer.sep_id is not None
        cls, sep = (tokenizer.cls_id,), (tokenizer.sep_id,)
        frame = Frame(cls, sep, (cls, sep, sep))
    before, between, after = frame.pair
    for i, (a, b) in enumerate(itertools.zip_longest(first, second or [])):
        if b is None:
            room = seq_len - len(frame.before) - len(frame.after)
            row = [*frame.before, *a[:room], *frame.after]
            head = len(row)
        else:
            room = seq_len - len(before) - len(between) - len(after)
            keep_b = min(len(b), max(room - len(a), room // 2))
            row = [*before, *a[: room - keep_b], *between]
            head = len(row)
            row += [*b[:keep_b], *after]
        tokens[i, : len(row)] = row
        token_types[i, head : len(row)] = 1
        segment_ids[i, : len(row)] = 1
    return {"tokens": tokens, "token_types": token_types, "segment_ids": segment_ids}


def _natural(label: str) -> tuple:
    """Sort key that puts "10" after "9", and numbers before words."""
    return (0, int(label), "") if label.lstrip("-").isdigit() else (1, 0, label)
