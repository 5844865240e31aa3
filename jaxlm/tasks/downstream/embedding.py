"""Sentence embeddings: one vector for a text, learnt from pairs that belong together or from pairs with a score.

`pairs` has the records, `retrieval` the metrics, `ops.contrastive` the losses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxlm.config import DecoderConfig, EncoderConfig, RunConfig, TaskConfig
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.models import flops, heads
from jaxlm.models.embedder import Embedding, embed_rows
from jaxlm.ops import contrastive
from jaxlm.tasks.downstream import pairs, texts
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Predictions, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(TaskConfig):
    """Map texts to vectors so that the cosine of two vectors says how well the texts belong together."""

    # contrastive: a text is nearest to its own second text among those of the whole batch (InfoNCE); cosent: pairs of
    # a batch are ordered by their scores; cosine: the cosine of a pair is its score
    objective: Literal["contrastive", "cosent", "cosine"] = "contrastive"
    # hidden state that becomes the vector: of the first token, of the last token, or the mean of all; auto: as in the
    # model of init, else mean for encoders and last for decoders
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    # whether vectors are scaled to length 1; default: as in the model of init, else yes
    normalize: bool | None = None
    # cosines are divided by it (contrastive, cosent)
    temperature: float = 0.05
    # contrastive: second texts are also to find their first text
    symmetric: bool = True
    # the first numbers of a vector are to be a vector by themselves, for each of these sizes (Matryoshka)
    sizes: tuple[int, ...] = ()
    # contrastive: column of a text that does not belong to the first one though it looks so (a hard negative)
    negative_column: str | None = None
    # contrastive: column of a class; pairs of the same class belong together
    group_column: str | None = None
    # cosent and cosine: column of the score of a pair
    score_column: str = "score"
    # cosine: scores are divided by it, to be cosines
    max_score: float = 1.0
    # put before first texts and before second ones, such as "query: "; default: as in the model of init, else nothing
    text_prompt: str | None = None
    pair_prompt: str | None = None
    # number of parts of a batch that are embedded one after another, to save memory; the loss is that of the whole
    # batch (GradCache, 2101.06983)
    parts: int = 1

    def __post_init__(self):
        super().__post_init__()
        for name in ("temperature", "max_score", "parts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"task.{name}={getattr(self, name)} must be positive")
        for size in self.sizes:
            if size < 1 or self.sizes.count(size) > 1:
                raise ValueError(f"task.sizes={self.sizes} must be different positive numbers")
        for name in ("negative_column", "group_column"):
            if getattr(self, name) is not None and self.objective != "contrastive":
                raise ValueError(
                    f"task.{name} has no effect with task.objective={self.objective}: only contrastive has it"
                )


class EmbeddingTask(Task):
    """See `EmbeddingConfig`."""

    Config = EmbeddingConfig
    name = "embedding"
    metric = "mrr"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig)
    coupled = True
    preview_legend = "each further text follows an arrow"

    @classmethod
    def columns(cls, config: Any, purpose: Purpose) -> Mapping[str, Column]:
        """A text; except for predictions its second text, and a negative, a class or a score."""
        s = config.task
        score = None if s.objective == "contrastive" else s.score_column
        return pairs.columns(config.data, purpose, s.negative_column, s.group_column, score)

    @classmethod
    def inherit(cls, config: Any, source: Any) -> EmbeddingConfig:
        """Pooling, normalisation and prompts of a model that embeds texts already."""
        s, old = config.task, source.embedding()
        if old is None:
            return s
        if old.max_len is not None and config.data.seq_len > old.max_len:
            raise ValueError(
                f"data.seq_len={config.data.seq_len} is more than the {old.max_len} tokens to which {source.folder} "
                "cuts texts (max_seq_length): lower it"
            )
        known = pairs.settings_of(old).items()
        unset = {name: x for name, x in known if getattr(s, name) in (None, "auto")}
        return dataclasses.replace(s, **unset)

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The records without scores out of range, and negatives that are the second text."""
        most = settings.max_score if settings.objective == "cosine" else None
        return pairs.usable(records, most, config.data.on_bad_row)

    def __init__(self, config: RunConfig, tokenizer: Any):
        """Also checks sizes and parts."""
        super().__init__(config, tokenizer)
        s, rows = self.settings, config.batch_size
        if s.objective != "contrastive":
            self.metric = "spearman"  # type: ignore[misc]
        if max(s.sizes, default=0) >= self.backbone.dim:
            raise ValueError(
                f"task.sizes={s.sizes} must be less than the width {self.backbone.dim} of the model"
            )
        if rows < 2 and s.objective != "cosine":
            raise ValueError(
                f"batch_size={rows}: objective {s.objective} compares the pairs of a batch: at least 2"
            )
        if rows % s.parts:
            raise ValueError(f"task.parts={s.parts} does not divide batch_size={rows}")

    @property
    def embedding(self) -> Embedding:
        """How the model makes vectors of texts."""
        s = self.settings
        auto = "last" if isinstance(self.backbone, DecoderConfig) else "mean"
        prompts = {"query": s.text_prompt or "", "document": s.pair_prompt or ""}
        return Embedding(
            pooling=auto if s.pooling == "auto" else s.pooling,  # type: ignore[arg-type]
            normalize=s.normalize is not False,
            max_len=self.config.data.seq_len,
            prompts=prompts if any(prompts.values()) else {},
            default_prompt="query" if s.text_prompt and s.text_prompt == s.pair_prompt else None,
        )

    def make_model(self) -> heads.Embedder:
        """The backbone with pooling and normalisation."""
        e = self.embedding
        return heads.Embedder(self.backbone, e.pooling, e.normalize, self.config.compute)

    def export_model(self) -> heads.Headless:
        """The backbone; files beside it say how it is pooled."""
        return heads.Headless(self.backbone, self.config.compute)

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """A record a row: its texts, each cut and padded, their identities, and its score."""
        s = self.settings
        prompts = {**dict.fromkeys(pairs.SIDES, s.pair_prompt or ""), "text": s.text_prompt or ""}
        length = self.config.data.seq_len
        arrays, cut = pairs.text_arrays(data, prompts, self.tokenizer, length)
        if purpose != "predict":
            arrays |= pairs.targets(data, s.max_score if s.objective == "cosine" else 1.0)
        return ArrayRows(arrays, texts.cut_remark(cut, arrays["tokens"][..., 0].size, length))

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """The objective on whole vectors and on their first numbers, added up."""
        s, valid = self.settings, batch["valid"]
        inputs = batch["tokens"], batch["segment_ids"]
        parts = s.parts if context.train else 1
        vectors = embed_rows(self.model, params, *inputs, key=context.dropout_key, parts=parts)
        how = dict(sizes=s.sizes, temperature=s.temperature, symmetric=s.symmetric)
        return Loss(contrastive.objective(s.objective, vectors, batch, **how), valid.sum())

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The vectors of the texts of each record [B, S, D]."""
        return {"vectors": embed_rows(self.model, params, batch["tokens"], batch["segment_ids"])}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """{"vector": of the text} and, for a pair, "pair_vector" and "similarity", their cosine."""
        return pairs.prediction(outputs[0]["vectors"], record)

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """Retrieval among all second texts and negatives, or correlations of cosines and scores; also by size."""
        return pairs.score(predictions, records, self.settings.sizes)

    def resample(
        self, predictions: Predictions, records: Records, draws: Iterable[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """See `pairs.resample`; correlations as they are computed of all."""
        if "score" in records.columns:
            return super().resample(predictions, records, draws)
        return pairs.resample(predictions, records, draws, self.settings.sizes)

    def cost(self, seq_len: int) -> float:
        """FLOPs per token of a row, which has several texts of this length."""
        sides = 2 + (self.settings.negative_column is not None)
        return sides * flops.flops_per_token(self.backbone, seq_len, output_fraction=0.0)

    def preview(self, row: Batch) -> list[Piece]:
        """The texts of a row."""
        return pairs.preview(row, self.tokenizer)
