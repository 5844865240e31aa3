"""Text to text: an encoder-decoder writes a target for a source, as in translation, summaries and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig, TaskConfig
from jaxlm.data.frames import Edges, pair_edges, prefix_of
from jaxlm.data.records import Column, Records
from jaxlm.generation import beam, weights
from jaxlm.models import heads
from jaxlm.tasks.downstream import text_scores
from jaxlm.tasks.downstream.text_pairs import Side, TextPairs
from jaxlm.tasks.pretraining.text_to_text import EncoderDecoderTask
from jaxlm.tasks.task import Context, Loss, Outputs, Predictions, Purpose

# memory grows with them
MOST_BEAMS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToTextConfig(TaskConfig):
    """Write the target text of a source text."""

    # columns of the texts; "translation.de" is the field de of the objects in the column translation
    source_column: str = "source"
    target_column: str = "target"
    # text before every source, such as "translate English to German: " for T5
    prefix: str = ""
    # tokens of the longest target, and target tokens of a row; default: data.seq_len, which is the number of a source
    target_len: int | None = None
    # put several pairs into a training row
    pack: bool = True
    # fraction of the target distribution that is uniform over the vocabulary, in training
    label_smoothing: float = 0.1
    # which scores the predictions get: BLEU and chrF, ROUGE, or exact match and F1; auto: as the lengths of the
    # training texts suggest
    score: Literal["auto", "translation", "summary", "answer"] = "auto"
    # language of the targets, which decides how scores cut texts into words: en, zh, ja, ko, ..., or und for any other;
    # default: as the letters of the training targets suggest
    target_language: str | None = None
    # number of validation examples that are predicted during training, a fixed random sample; at the end it is all of
    # them. None: always all
    eval_samples: int | None = 200
    # predictions: number of beams (1: the most probable token at each step), maximum number of tokens (default: as long
    # as the longest target), power of the length by which scores of beams are divided
    num_beams: int = 4
    max_new_tokens: int | None = None
    length_penalty: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("label_smoothing")
        for name in ("target_len", "eval_samples", "num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"task.{name}={value} must be at least 1")
        if self.num_beams > MOST_BEAMS:
            raise ValueError(f"task.num_beams={self.num_beams} must be at most {MOST_BEAMS}")
        if self.length_penalty < 0:
            raise ValueError(
                f"task.length_penalty={self.length_penalty} must not be negative: the search ends early"
            )
        if self.source_column == self.target_column:
            raise ValueError(
                f"task.source_column and task.target_column are both {self.source_column!r}"
            )


class TextToText(EncoderDecoderTask):
    """See `TextToTextConfig`."""

    Config = TextToTextConfig
    name = "text_to_text"
    lower_is_better = False
    roles: ClassVar[tuple[str, ...]] = ("eos", "pad")
    adjustable = dict.fromkeys(
        ("num_beams", "max_new_tokens", "length_penalty"), ("predict", "validation")
    )

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """Source and target; predictions need no target."""
        s: Any = config.task
        return {
            "source": Column(s.source_column, "text", option="task.source-column"),
            "target": Column(
                s.target_column, "text", required=purpose != "predict", option="task.target-column"
            ),
        }

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> TextToTextConfig:
        """The settings with the kind of scores and the language of the targets."""
        kind, language = settings.score, settings.target_language
        sources, targets = records.columns["source"], records.columns["target"]
        kind = text_scores.kind_of(sources, targets) if kind == "auto" else kind
        language = language or text_scores.language_of(targets)
        return dataclasses.replace(settings, score=kind, target_language=language)

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> TextToTextConfig | None:
        """Settings for an encoder-decoder of the hub, whose config.json is `about`; None: it is another model."""
        if not isinstance(model, heads.Seq2SeqLM):
            return None
        return TextToTextConfig(prefix=prefix_of(about))

    def __init__(self, config, tokenizer):
        """Also checks how the tokenizer frames texts, and that the model can write what is asked for."""
        super().__init__(config, tokenizer)
        self.edges = pair_edges(self.tokenizer)
        self.prefix = self.settings.prefix
        most = self.backbone.max_len - 1
        self.max_new_tokens = self.settings.max_new_tokens or min(self.target_len, most)
        if self.max_new_tokens > most:
            raise ValueError(
                f"task.max_new_tokens={self.max_new_tokens} is more than the {most} that the model can write"
            )
        penalty = self.settings.length_penalty
        if penalty * np.log(self.max_new_tokens) > np.log(np.finfo(np.float32).max):
            raise ValueError(
                f"task.length_penalty={penalty} is out of range: this power of {self.max_new_tokens} tokens is no "
                "finite number"
            )

    @property
    def target_len(self) -> int:
        """Target tokens per row."""
        return self.settings.target_len or self.config.data.seq_len

    @property
    def metric(self) -> str:  # type: ignore[override]
        """The score that selects the best checkpoint, of the sample if there is one."""
        name = text_scores.MAIN.get(self.settings.score, "bleu")
        return name if self.settings.eval_samples is None else f"sample_{name}"

    def rows(self, data: Records, purpose: Purpose) -> TextPairs:
        """Pairs packed for training, otherwise one a row; see `TextPairs`."""
        if purpose == "validation":
            text_scores.check(self.settings.score, self.settings.target_language)
        t, limits = self.tokenizer, (self.config.data.seq_len, self.target_len)
        assert t.pad_id is not None and t.start_id is not None
        sources = t.encode_batch([self.prefix + text for text in data.columns["source"]])
        targets = None if purpose == "predict" else t.encode_batch(data.columns["target"])
        return TextPairs.of(
            Side.of(sources, self.edges.source, limits[0]),
            None if targets is None else Side.of(targets, self.edges.target, limits[1]),
            capacities=limits if purpose == "train" and self.settings.pack else None,
            pad_id=t.pad_id,
            start_id=t.start_id,
        )

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the target's tokens, smoothed in training."""
        smoothing = self.settings.label_smoothing if context.train else 0.0
        options = dict(label_smoothing=smoothing, smoothed_ids=self.known_ids)
        return self.target_loss(params, batch, context, **options)

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The best target that beam search finds: "tokens" [B, max_new_tokens], filled up with eos, and its "score"."""
        s, segments = self.settings, batch["segment_ids"]
        eos, start = self.tokenizer.eos_id, self.tokenizer.start_id
        assert eos is not None and start is not None
        prompts = jnp.full((segments.shape[0], 1), start, jnp.int32)
        given = self.model, weights.by_layer(params), prompts, jnp.ones_like(prompts[:, 0])
        tokens, score = beam.best(
            *given,
            beams=s.num_beams,
            max_new_tokens=self.max_new_tokens,
            eos_id=eos,
            length_penalty=s.length_penalty,
            source=batch["tokens"],
            source_lengths=(segments > 0).sum(-1),
            vocab_size=self.known_ids,
        )
        return {"tokens": tokens, "score": score}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """{"text": the target, "score": its log-probability over its length to the power of the penalty}."""
        tokens = outputs[0]["tokens"]
        ends = np.flatnonzero(tokens == self.tokenizer.eos_id)
        text = self.tokenizer.decode(tokens[: ends[0]] if len(ends) else tokens)
        return {"text": text, "score": round(float(outputs[0]["score"]), 6)}

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """BLEU and chrF, ROUGE, or exact match and F1, in percent."""
        texts = [p["text"] for p in predictions]
        s = self.resolve(self.settings, records)
        return text_scores.score(s.score, s.target_language, texts, records.columns["target"])

    def signatures(self) -> dict[str, str]:
        """How the scores are computed."""
        return text_scores.signatures(self.settings.score, self.settings.target_language)

    def scored_sample(self) -> int | None:
        """The number in the settings."""
        return self.settings.eval_samples

    # ---- the trained model as it is loaded and exported

    def prompt_edges(self) -> Edges:
        """Those of sources."""
        return self.edges.source

    def writing(self) -> dict[str, Any]:
        """The number of tokens of predictions."""
        return {"max_new_tokens": self.max_new_tokens}
