"""Classification: the class of a text, or of a pair of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
from jaxlm.ops import losses
from jaxlm.tasks import scores
from jaxlm.tasks.downstream import class_weights, texts
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Predictions, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TaskConfig):
    """Predict the class of a text or of a pair of texts."""

    # class names in the order of the outputs; default: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # hidden state that the head reads: of the first token, of the last one, the mean of all, or what the decoder of an
    # encoder-decoder makes of the end of the text; auto: first for encoders (mean if the tokenizer has no token before
    # texts, as T5's), last for decoders, mean of the encoder for encoder-decoders
    pooling: texts.Pooling = "auto"
    # dropout of the pooled vector
    dropout: float = 0.1
    # fraction of the target distributed evenly over the classes
    label_smoothing: float = 0.0
    # weights of the classes in the loss of training, such as ("spam=3", "news=0.5"), 1 for the others; or
    # ("balanced",): inversely proportional to the number of their training examples, 1 on average
    class_weights: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("dropout", "label_smoothing")


class Classification(Task):
    """See `ClassificationConfig`."""

    Config = ClassificationConfig
    name = "classification"
    metric = "accuracy"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig, EncoderDecoderConfig)
    roles = ("sep",)
    preview_legend = "the class to predict follows the arrow"
    padded = ("tokens", "token_types", "segment_ids")

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """A text, optionally a second one, and the label."""
        target = (
            {} if purpose == "predict" else {"label": Column(config.data.label_column, "label")}
        )
        return {**texts.columns(config), **target}

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> ClassificationConfig:
        """Settings with class names."""
        labels = resolve_labels(settings.labels, records)
        weights = class_weights.resolve(settings.class_weights, labels, records.columns["label"])
        return dataclasses.replace(settings, labels=labels, class_weights=weights)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The examples whose label is a class; others are errors with file and row, or skipped and counted."""
        labels = records.columns.get("label", [None] * len(records))

        def fault(i: int) -> BadRow | None:
            if labels[i] is None or labels[i] in settings.labels:
                return None
            hint = texts.hint(labels[i], settings.labels)
            return BadRow("unknown label", f"{labels[i]!r}; {hint}")

        return texts.usable(records, config, fault)

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> ClassificationConfig | None:
        """Settings for a classifier whose outputs are the logits of one class."""
        single = about.get("problem_type") in (None, "single_label_classification")
        pooling = texts.pooling_of(model)
        if pooling is None or model.num_classes < 2 or not single:
            return None
        return ClassificationConfig(
            labels=texts.class_names(about, model.num_classes), pooling=pooling
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.settings.labels

    @property
    def _weights(self) -> list[float]:
        """The weight of each class in the loss of training."""
        given = class_weights.parse(self.settings.class_weights, self.labels)
        return [given.get(name, 1.0) for name in self.labels]

    def frame(self) -> Frame:
        """See `texts.frame`."""
        return texts.frame(self)

    def make_model(self) -> texts.TextClassifier:
        """A classifier on the backbone."""
        return texts.classifier(self, len(self.labels))

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """One text or pair per row: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], truncated and padded."""
        if purpose == "predict":
            return texts.rows(self, data)
        index = {name: i for i, name in enumerate(self.labels)}
        labels = np.array([index[x] for x in data.columns["label"]], np.int32)
        return texts.rows(self, data, labels=labels)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the class, and the confusion matrix."""
        logits = texts.logits(self, params, batch, context.dropout_key)
        weights, smoothing = batch["valid"], 0.0
        if context.train:
            smoothing = self.settings.label_smoothing
            if self.settings.class_weights:
                weights = weights * jnp.array(self._weights)[batch["labels"]]
        total = losses.class_cross_entropy(
            logits, batch["labels"], weights, label_smoothing=smoothing
        )
        classes = len(self.labels)
        pairs = batch["labels"] * classes + jnp.argmax(logits, -1)
        confusion = jnp.zeros(classes**2).at[pairs].add(batch["valid"])
        return Loss(total, weights.sum(), sums={"confusion": confusion.reshape(classes, classes)})

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss, accuracy, macro precision, recall and F1, and Matthews correlation."""
        return {**means, **scores.summary(sums["confusion"])}

    def render(self, sums: dict[str, np.ndarray]) -> str:
        """Scores by class, and the confusion matrix."""
        return scores.render(sums["confusion"], self.labels)

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """Probabilities of the classes [B, C]."""
        return {"probabilities": jax.nn.softmax(texts.logits(self, params, batch, None), axis=-1)}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """See `prediction`."""
        return prediction(outputs[0]["probabilities"], self.labels)

    def resample(
        self, predictions: Predictions, records: Records, draws: Iterable[np.ndarray]
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


def resolve_labels(given: tuple[str, ...], records: Records) -> tuple[str, ...]:
    """The given class names, by default the sorted labels of the records."""
    labels = given or texts.in_natural_order(set(records.columns["label"]))
    if len(labels) < 2:
        where = "task.labels" if given else "data.train"
        raise ValueError(f"{where} has only the label {labels[0]!r}: at least two are needed")
    texts.check_names(labels, "task.labels")
    return labels


def prediction(p: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """{"label": the most likely class, "probability": its probability, "probabilities": {class: probability}}."""
    best = int(p.argmax())
    return {
        "label": labels[best],
        "probability": round(float(p[best]), 6),
        "probabilities": {name: round(float(x), 6) for name, x in zip(labels, p)},
    }
