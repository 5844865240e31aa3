"""Several labels at once: which of the labels apply to a text or a pair of texts; any number of them, also none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from jaxlm.tasks.downstream import counts, texts
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelConfig(TaskConfig):
    """Predict all labels that apply to a text or to a pair of texts."""

    # labels in the order of the outputs; default: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # a label is predicted if its probability is at least this
    threshold: float = 0.5
    # as in `ClassificationConfig`: first, last, mean, decoder, or auto
    pooling: texts.Pooling = "auto"
    # dropout of the pooled vector
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        self.check_between_0_and_1("threshold")
        self.check_fractions("dropout")


class MultiLabel(Task):
    """See `MultiLabelConfig`."""

    Config = MultiLabelConfig
    name = "multi_label"
    metric = "micro_f1"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig, EncoderDecoderConfig)
    roles = ("sep",)
    preview_legend = "the labels to predict follow the arrow"

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """A text, optionally a second one, and the list of its labels, in `data.label_column`."""
        target = (
            {} if purpose == "predict" else {"label": Column(config.data.label_column, "labels")}
        )
        return {**texts.columns(config), **target}

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> MultiLabelConfig:
        """Settings with the names of the labels."""
        used = {label for row in records.columns["label"] for label in row}
        labels = settings.labels or texts.in_natural_order(used)
        if not labels:
            raise ValueError("data.train: no row has a label; is data.label_column the right one?")
        texts.check_names(labels, "task.labels")
        return dataclasses.replace(settings, labels=labels)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The examples without an unknown label; others are errors with file and row, or skipped and counted."""
        names = set(settings.labels)
        rows = records.columns.get("label", [[]] * len(records))

        def fault(i: int) -> BadRow | None:
            unknown = next((label for label in rows[i] if label not in names), None)
            if unknown is None:
                return None
            hint = texts.hint(unknown, settings.labels, "labels")
            return BadRow("unknown label", f"{unknown!r}; {hint}")

        return texts.usable(records, config, fault)

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> MultiLabelConfig | None:
        """Settings for a classifier whose outputs are the logits of one label each."""
        several = about.get("problem_type") == "multi_label_classification"
        pooling = texts.pooling_of(model)
        if pooling is None or not several:
            return None
        names = texts.class_names(about, model.num_classes)
        return MultiLabelConfig(labels=names, pooling=pooling)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.settings.labels

    def frame(self) -> Frame:
        """See `texts.frame`."""
        return texts.frame(self)

    def make_model(self) -> texts.TextClassifier:
        """A classifier on the backbone."""
        return texts.classifier(self, len(self.labels))

    def export_settings(self) -> dict[str, Any]:
        """How transformers computes loss and probabilities."""
        return {"problem_type": "multi_label_classification"}

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """One text or pair per row; labels [n, C] int8 are 1 where a label applies."""
        if purpose == "predict":
            return texts.rows(self, data)
        index = {name: i for i, name in enumerate(self.labels)}
        labels = np.zeros((len(data), len(index)), np.int8)
        for i, row in enumerate(data.columns["label"]):
            labels[i, [index[name] for name in row]] = 1
        return texts.rows(self, data, labels=labels)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Binary cross entropy, the mean over the labels; and the counts of the decisions about each label."""
        logits = texts.logits(self, params, batch, context.dropout_key)
        true, valid = batch["labels"] > 0, batch["valid"]
        total = (jax.nn.softplus(jnp.where(true, -logits, logits)).mean(-1) * valid).sum()
        predicted = jax.nn.sigmoid(logits) >= self.settings.threshold
        hits = jnp.stack([true & predicted, predicted, true])
        exact = ((predicted == true).all(-1) * valid).sum()
        return Loss(
            total,
            valid.sum(),
            means={"subset_accuracy": (exact, valid.sum())},
            sums={"counts": jnp.einsum("kBC,B->kC", hits.astype(jnp.float32), valid)},
        )

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss, subset accuracy (all labels of a text are right), and micro and macro precision, recall and F1."""
        both = {"micro": counts.micro(sums["counts"]), "macro": counts.macro(sums["counts"])}
        means = dict(means)
        for kind, found in both.items():
            means |= {f"{kind}_{name}": float(x) for name, x in found._asdict().items()}
        return means

    def render(self, sums: dict[str, np.ndarray]) -> str:
        """Scores by label."""
        return counts.render(sums["counts"], self.labels, "label")

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """Probability of each label [B, C]."""
        return {"probabilities": jax.nn.sigmoid(texts.logits(self, params, batch, None))}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """{"labels": those at or above the threshold, "probabilities": {label: probability}}."""
        p = outputs[0]["probabilities"]
        return {
            "labels": [self.labels[i] for i in np.flatnonzero(p >= self.settings.threshold)],
            "probabilities": {name: round(float(x), 6) for name, x in zip(self.labels, p)},
        }

    def preview(self, row: Batch) -> list[Piece]:
        """The text of a row, followed by its labels."""
        names = [self.labels[i] for i in np.flatnonzero(row["labels"])]
        return [*super().preview(row), Piece("=>", bool(row["valid"]), ", ".join(names) or "none")]
