"""Regression: a number for a text or a pair of texts, such as a rating or how similar two sentences are."""

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
from jaxlm.data.frames import Frame
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.tasks.downstream import correlation, texts
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Predictions, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig(TaskConfig):
    """Predict a number for a text or a pair of texts.

    The model learns the number minus `mean`, divided by `deviation`; predictions and exported models are in the
    original unit.
    """

    # mean and standard deviation of the numbers; default: those of the training data
    mean: float | None = None
    deviation: float | None = None
    # as in `ClassificationConfig`: first, last, mean, decoder, or auto
    pooling: texts.Pooling = "auto"
    # dropout of the pooled vector
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("dropout")
        if self.deviation is not None and self.deviation <= 0:
            raise ValueError(f"task.deviation={self.deviation} must be positive")


class Regression(Task):
    """See `RegressionConfig`."""

    Config = RegressionConfig
    name = "regression"
    metric = "pearson"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig, EncoderDecoderConfig)
    roles = ("sep",)
    preview_legend = "the number to predict follows the arrow"

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """A text, optionally a second one, and the number, in `data.label_column`."""
        target = (
            {} if purpose == "predict" else {"label": Column(config.data.label_column, "number")}
        )
        return {**texts.columns(config), **target}

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> RegressionConfig:
        """Settings with mean and deviation."""
        numbers = np.array(records.columns["label"], np.float64)
        if settings.deviation is None and np.ptp(numbers) == 0:
            raise ValueError(
                f"data.train: all {len(numbers):,} numbers are {numbers[0]:g}: there is nothing to learn"
            )
        mean = float(numbers.mean()) if settings.mean is None else settings.mean
        deviation = float(numbers.std()) if settings.deviation is None else settings.deviation
        return dataclasses.replace(settings, mean=mean, deviation=deviation)

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> RegressionConfig | None:
        """Settings for a classifier with one output, which is the number itself."""
        pooling = texts.pooling_of(model)
        if pooling is None or model.num_classes != 1:
            return None
        if about.get("problem_type") not in (None, "regression"):
            return None
        return RegressionConfig(mean=0.0, deviation=1.0, pooling=pooling)

    @property
    def _mean(self) -> float:
        # the head of a decoder has no bias to which the mean could be added on export
        return 0.0 if isinstance(self.backbone, DecoderConfig) else self.settings.mean

    def frame(self) -> Frame:
        """See `texts.frame`."""
        return texts.frame(self)

    def make_model(self) -> texts.TextClassifier:
        """A classifier with one output."""
        return texts.classifier(self, 1)

    def export_params(self, params: Any) -> Any:
        """Parameters whose output is in the original unit."""
        classes = dict(params["head"]["classes"])
        classes["kernel"] = classes["kernel"] * self.settings.deviation
        if "bias" in classes:
            classes["bias"] = classes["bias"] * self.settings.deviation + self._mean
        return {**params, "head": {**params["head"], "classes": classes}}

    def export_settings(self) -> dict[str, Any]:
        """That the output is a number."""
        return {"problem_type": "regression"}

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """One text or pair per row, and the standardised target [n] float32."""
        if purpose == "predict":
            return texts.rows(self, data)
        numbers = np.array(data.columns["label"], np.float64)
        target = ((numbers - self._mean) / self.settings.deviation).astype(np.float32)
        return texts.rows(self, data, target=target)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Mean squared error of the standardised number."""
        output = texts.logits(self, params, batch, context.dropout_key)[:, 0]
        errors = jnp.square(output - batch["target"])
        return Loss((errors * batch["valid"]).sum(), batch["valid"].sum())

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The standardised number [B]."""
        return {"output": texts.logits(self, params, batch, None)[:, 0]}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """{"value": the number in the original unit}."""
        return {"value": float(outputs[0]["output"]) * self.settings.deviation + self._mean}

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """Pearson and Spearman correlation; root of the mean squared error and mean absolute error, in the original
        unit."""
        predicted = np.array([p["value"] for p in predictions])
        true = np.array(records.columns["label"], np.float64)
        errors = predicted - true
        return {
            "pearson": correlation.pearson(predicted, true),
            "spearman": correlation.spearman(predicted, true),
            "root_mean_squared_error": float(np.sqrt(np.square(errors).mean())),
            "mean_absolute_error": float(np.abs(errors).mean()),
        }

    def preview(self, row: Batch) -> list[Piece]:
        """The text of a row, followed by its number."""
        number = float(row["target"]) * self.settings.deviation + self._mean
        return [*super().preview(row), Piece("=>", bool(row["valid"]), f"{number:g}")]
