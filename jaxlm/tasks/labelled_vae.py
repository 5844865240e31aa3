"""The text VAE with classes: a classifier reads the posterior mean, and learns from the texts that have a label.

Letters: B rows, M texts per row, C classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data.bad_rows import BadRow
from jaxlm.data.columns import Column
from jaxlm.data.documents import TokenDocuments, TwoTokenizations
from jaxlm.data.loader import Batch, Dataset
from jaxlm.data.mixture import Mixture
from jaxlm.data.packing import Members, Packing
from jaxlm.data.ragged import owners_and_offsets
from jaxlm.data.records import Records
from jaxlm.data.rows import ArrayRows, CorruptedRows, Keys, PairRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import vae
from jaxlm.ops import losses
from jaxlm.tasks import scores, vae_rows
from jaxlm.tasks.downstream.classification import Classification, prediction, resolve_labels
from jaxlm.tasks.task import Context, Loss, Outputs, Purpose
from jaxlm.tasks.vae import TextVAE, TextVAEConfig
from jaxlm.tasks.vae_rows import Documents


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledVAEConfig(TextVAEConfig):
    """A text VAE whose latent also tells the class of a text; most texts of the training data may lack the label."""

    # class names in the order of the outputs; default: the sorted labels of the training data
    labels: tuple[str, ...] = ()
    # weight of the cross entropy of the class of a labelled text, beside the nats of its bound (alpha of Kingma et al.
    # 2014, 1406.5298, equation 9)
    class_weight: float = 10.0
    # fraction of the training rows that hold labelled texts, if others are not labelled
    labelled_fraction: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.class_weight <= 0:
            raise ValueError(
                f"task.class_weight={self.class_weight} must be positive; without classes use TextVAEConfig"
            )
        self.check_between_0_and_1("labelled_fraction")
        if self.long_texts != "refuse":
            raise ValueError(
                f"task.long_texts={self.long_texts}: a label is of a whole text: leave it unset"
            )


class LabelledVAE(TextVAE):
    """See `LabelledVAEConfig`."""

    Config = LabelledVAEConfig
    name = "labelled_vae"
    metric = "class_accuracy"
    lower_is_better = False
    # rows of an evaluation hold several texts
    predicts_validation = False

    def __init__(self, config: RunConfig, tokenizer: Tokenizer):
        """Checks that the settings fit the model."""
        super().__init__(config, tokenizer)
        if self.backbone.mean_scale:
            raise ValueError(
                f"model.mean_scale={self.backbone.mean_scale} does not fit task {self.name}, whose predictions know "
                "no statistics of training: leave it unset"
            )

    # ---- data

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """A text, and a label, which may be missing."""
        data = config.data
        return {
            "text": Column(data.text_column, "text"),
            "label": Column(data.label_column, "label", required=False),
        }

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> LabelledVAEConfig:
        """Settings with class names."""
        known = [i for i, label in enumerate(records.columns["label"]) if label is not None]
        if not known:
            raise ValueError(
                "data.train has no labels: set data.label_column, or use TextVAEConfig"
            )
        labels = resolve_labels(settings.labels, records.take(known))
        return dataclasses.replace(settings, labels=labels)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The texts without a label, and those whose label is a class."""
        return Classification.select(settings, records, config)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.settings.labels

    def rows(self, data: Any, purpose: Purpose) -> Dataset:
        """Rows of several texts, in training labelled and other ones apart; to predict, a text in each row."""
        if not isinstance(data, Records):
            # of `run.latents`
            return super().rows(data, purpose)
        kept = self._fitting(data)
        if not len(kept):
            if purpose == "predict":
                return ArrayRows({"record": kept})
            raise ValueError(f"no text can be used; {data.counts}")
        data = data.take(kept.tolist())
        index = {name: i for i, name in enumerate(self.labels)}
        labels = np.array([index.get(label, -1) for label in data.columns["label"]], np.int32)
        known, others = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
        if purpose == "validation" and not len(known):
            raise ValueError(
                "no text of the validation data has a label, so that nothing tells how good the classes are: name data "
                f"whose column {self.config.data.label_column} has labels"
            )
        if purpose == "train" and len(known) and len(others):
            fraction = self.settings.labelled_fraction
            parts = tuple(self._rows(data.take(x), labels[x], purpose) for x in (known, others))
            names, fractions = ("labelled", "unlabelled"), (fraction, 1 - fraction)
            return Mixture(parts, names, fractions, self.config.seed)
        rows = self._rows(data, labels, purpose)
        if purpose != "predict":
            return rows
        count = np.arange(len(data))
        alone = Packing(count, count + 1, rows.packed.packing.counts)
        rows = dataclasses.replace(rows, packed=dataclasses.replace(rows.packed, packing=alone))
        # arrays, which tell the record of each row where others were skipped
        return ArrayRows({**rows.rows(count, np.zeros_like(count)), "record": kept})

    def _fitting(self, data: Records) -> np.ndarray:
        """The indices of the texts that fit a row; another one is an error, or skipped and counted."""
        most, bad = self.config.data.seq_len - 2, {}
        for i, length in enumerate(vae_rows.lengths(self._documents(data)).tolist()):
            if not length:
                bad[i] = BadRow("a text without tokens")
            elif length > most:
                bad[i] = BadRow(
                    "a text that is longer than a row",
                    f"{length:,} tokens, {most:,} fit: raise data.seq_len (--seq-len of a trained model)",
                )
        data.without(bad, self.config.data.on_bad_row)
        return np.array([i for i in range(len(data)) if i not in bad], np.int64)

    def _documents(self, records: Records) -> Documents:
        written = _side(records, self.tokenizer)
        if self.encoder_tokenizer is self.tokenizer:
            return written
        return TwoTokenizations(_side(records, self.encoder_tokenizer), written)

    def _rows(self, records: Records, labels: np.ndarray, purpose: Purpose) -> CorruptedRows:
        rows: Any = super().rows(self._documents(records), purpose)
        corrupt = functools.partial(
            frame_labelled, plain=rows.corrupt, labels=labels, texts=self.texts_per_row
        )
        return dataclasses.replace(rows, corrupt=corrupt)

    # ---- model and loss

    def make_model(self) -> vae.TextVAE:
        """Encoder, latent, decoder and classifier."""
        return vae.TextVAE(self.backbone, self.config.compute, len(self.labels))

    def encoder_params(self) -> tuple[str, ...]:
        """Those of posterior, prior and classifier."""
        return (*super().encoder_params(), "head/classes/*")

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """That of the VAE, and the cross entropy of the classes of labelled texts, in nats per text of any kind."""
        loss, posterior = self.bound(params, batch, context)
        classes = len(self.labels)
        logits = self._logits(params, posterior.mean).reshape(-1, classes)
        known = ((batch["labels"] >= 0) * batch["valid"][:, None]).ravel()
        labels = jnp.maximum(batch["labels"], 0).ravel()
        total = losses.class_cross_entropy(logits, labels, known)
        pairs = labels * classes + jnp.argmax(logits, -1)
        confusion = jnp.zeros(classes**2).at[pairs].add(known).reshape(classes, classes)
        return loss._replace(
            total=loss.total + self.settings.class_weight * total,
            means={**loss.means, "class_loss": (total, known.sum())},
            sums={**loss.sums, "confusion": confusion},
        )

    def _logits(self, params: Any, mean: jax.Array) -> jax.Array:
        return self.model.apply({"params": params}, mean, method="classes")

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Those of the VAE, and scores of the classes; "accuracy" is that of the tokens.

        Without a labelled text, as in many a batch, there are no scores of the classes.
        """
        found = super().metrics(means, sums)
        if not np.any(sums["confusion"]):
            return found
        of_classes = scores.summary(sums["confusion"])
        return {**found, **{f"class_{name}": value for name, value in of_classes.items()}}

    def render(self, sums: dict[str, np.ndarray]) -> str | None:
        """Scores by class, and the confusion matrix."""
        return scores.render(sums["confusion"], self.labels) if np.any(sums["confusion"]) else None

    # ---- predictions

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """Probabilities of the classes [B, C] and posterior means [B, Z], of the only text of each row."""
        mean = self.posterior(params, batch, None)[0].mean[:, 0]
        return {"probabilities": jax.nn.softmax(self._logits(params, mean), axis=-1), "mean": mean}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """As a classifier's: the most likely class, and the probability of each."""
        return prediction(outputs[0]["probabilities"], self.labels)


def _side(records: Records, tokenizer: Tokenizer) -> TokenDocuments:
    """The texts of records as one of the tokenizers divides them."""
    ids = records.token_ids("text", tokenizer)
    return TokenDocuments(np.concatenate(ids), np.cumsum([len(x) for x in ids], dtype=np.int64))


def frame_labelled(
    packed: PairRows,
    members: Members,
    keys: Keys,
    *,
    plain: Callable[[PairRows, Members, Keys], Batch],
    labels: np.ndarray,
    texts: int,
) -> Batch:
    """Adds labels [n, texts] to the rows of `plain`: -1 where a text has none, or there is no text."""
    batch = plain(packed, members, keys)
    out = np.full((members.num_rows, texts), -1, np.int32)
    counts = np.bincount(members.rows, minlength=members.num_rows)
    out[owners_and_offsets(counts)] = labels[members.pieces]
    return {**batch, "labels": out}
