"""Extractive question answering: the part of a text that answers a question, or that the text has no answer.

A context that is longer than a row is read in windows that overlap; the best span of all windows is the answer. Its
text is cut from the original context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DecoderConfig, EncoderConfig, RunConfig, TaskConfig
from jaxlm.data.frames import Frame
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.models import heads
from jaxlm.tasks.downstream import answer_scores, answer_spans, context_windows, texts
from jaxlm.tasks.downstream.answer_spans import EndLogits
from jaxlm.tasks.downstream.context_windows import QuestionWindows
from jaxlm.tasks.task import Context, Loss, Outputs, Piece, Predictions, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweringConfig(TaskConfig):
    """Answer a question with a part of a text; reads the JSON of SQuAD, and rows with these columns."""

    # columns
    context_column: str = "context"
    question_column: str = "question"
    answers_column: str = "answers"
    # column of an identifier of each question, repeated beside its prediction; None: there is none
    id_column: str | None = "id"
    # tokens by which a window of a long context advances; default: half of the room beside the question
    stride: int | None = None
    # longest answer, in tokens
    max_answer_tokens: int = 30
    # whether a question may have no answer; default: whether one of the training data has none
    unanswerable: bool | None = None
    # no answer is given if its score exceeds that of the best span by more than this
    null_threshold: float = 0.0
    # how answers are compared: as SQuAD does, or as CMRC 2018 does; auto: by the script of the training contexts
    language: Literal["auto", "english", "chinese"] = "auto"
    # dropout of the hidden states
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("dropout")
        for name in ("stride", "max_answer_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"task.{name}={getattr(self, name)} must be at least 1")


class Answering(Task):
    """See `AnsweringConfig`."""

    Config = AnsweringConfig
    name = "answering"
    metric = "f1"
    lower_is_better = False
    backbones = (EncoderConfig, DecoderConfig)
    roles = ("cls", "sep")
    adjustable = dict.fromkeys(
        ("unanswerable", "null_threshold", "max_answer_tokens"), ("predict", "validation")
    )
    preview_legend = "the first and the last token of the answer are marked, or the one that stands for no answer"

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """Context and question, the answers, and an identifier if there is one."""
        s: Any = config.task
        found = {
            "context": Column(s.context_column, "text", option="task.context-column"),
            "question": Column(s.question_column, "text", option="task.question-column"),
        }
        if purpose != "predict":
            option = "task.answers-column"
            found["answers"] = Column(s.answers_column, "answers", over="context", option=option)
        if s.id_column is not None:
            found["question_id"] = Column(s.id_column, "label", False, option="task.id-column")
        return found

    @classmethod
    def resolve(cls, settings: Any, records: Records) -> AnsweringConfig:
        """Settings with the language, and with whether there are questions without an answer."""
        unanswerable, language = settings.unanswerable, settings.language
        if unanswerable is None:
            unanswerable = any(not answers["text"] for answers in records.columns["answers"])
        if language == "auto":
            language = answer_scores.language_of(records.columns["context"][:1000])
        return dataclasses.replace(settings, unanswerable=unanswerable, language=language)

    @classmethod
    def shorten(cls, settings: Any, seq_len: int, full_seq_len: int) -> AnsweringConfig:
        """The settings with a shorter stride."""
        stride = settings.stride and max(1, settings.stride * seq_len // full_seq_len)
        return dataclasses.replace(settings, stride=stride)

    @classmethod
    def adjust(cls, settings: Any, given: Mapping[str, Any], purpose: Purpose) -> Any:
        """Refuses the threshold of no answer where every question gets one."""
        found = super().adjust(settings, given, purpose)
        if "unanswerable" in given and found.unanswerable is None:
            raise ValueError("task.unanswerable=None says nothing: give True or False")
        # an evaluation of a model that does not say finds it out from the data
        answers_all = found.unanswerable is False or (
            found.unanswerable is None and purpose == "predict"
        )
        if "null_threshold" in given and answers_all:
            raise ValueError(
                f"task.null_threshold has no effect with task.unanswerable={found.unanswerable}, where every question "
                "gets an answer: give unanswerable=True too"
            )
        return found

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> AnsweringConfig | None:
        """Settings for a model that points to the first and the last token of an answer."""
        given = answer_spans.settings_of(about)
        return AnsweringConfig(**given) if isinstance(model, heads.SpanQA) else None

    def export_settings(self) -> dict[str, Any]:
        """How answers are chosen."""
        return answer_spans.exported(self.settings)

    def frame(self) -> Frame:
        """Those of a text, and of a question and its context."""
        first, *_, last = pair = context_windows.around(self.tokenizer)
        return Frame(first, last, (pair[0], pair[1], pair[2]))

    def make_model(self) -> heads.SpanQA:
        """A classifier of tokens with the two outputs for first and last token."""
        return heads.SpanQA(
            self.backbone, dropout=self.settings.dropout, compute=self.config.compute
        )

    def rows(self, data: Records, purpose: Purpose) -> QuestionWindows:
        """A question and a window of its context per row; see `context_windows`."""
        return context_windows.build(
            data,
            self.tokenizer,
            seq_len=self.config.data.seq_len,
            stride=self.settings.stride,
            on_bad_row=self.config.data.on_bad_row,
            is_training=purpose == "train",
            with_targets=purpose != "predict",
            # the first token of a decoder has not seen the question
            no_answer_is_last=isinstance(self.backbone, DecoderConfig),
        )

    def _logits(self, params: Any, batch: dict, key: jax.Array | None) -> EndLogits:
        return EndLogits.of(texts.logits(self, params, batch, key), batch)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of first and last token, their mean, among those of the context and the one for no answer."""
        total = jnp.zeros(())
        right = batch["valid"]
        for i, logits in enumerate(self._logits(params, batch, context.dropout_key).possible()):
            target = batch["targets"][:, i]
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), target[:, None], 1)[:, 0]
            total -= (chosen * batch["valid"]).sum() / 2
            right = right * (logits.argmax(-1) == target)
        weight = batch["valid"].sum()
        return Loss(total, weight, means={"window_accuracy": (right.sum(), weight)})

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The best span of each window: its score, probability and characters [B, 2]; and the score of no answer."""
        longest = self.settings.max_answer_tokens
        return answer_spans.best(self._logits(params, batch, None), batch["characters"], longest)

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """`answer` with `start` and `end` in the context, its score and probability.

        Where questions may have no answer: `answer` may be "" (start and end are then null), `no_answer_score` is how
        much the score of no answer exceeds that of the best span, and `candidate` is the text of that span.
        """
        named = record.get("question_id")
        known = {} if named is None else {"question_id": named}
        return known | answer_spans.answer(outputs, record["context"], self.settings)

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """exact_match and f1, in percent; see `answer_scores.score`."""
        known = {}
        if self.settings.unanswerable:
            known["no_answer"] = [p["no_answer_score"] for p in predictions]
            known["candidates"] = [p["candidate"] for p in predictions]
        true = [answers["text"] for answers in records.columns["answers"]]
        found = [p["answer"] for p in predictions]
        return answer_scores.score(true, found, self.settings.language, **known)

    def resample(
        self, predictions: Predictions, records: Records, draws: Iterable[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """exact_match and f1: means over the resampled questions."""
        true = [answers["text"] for answers in records.columns["answers"]]
        found = [p["answer"] for p in predictions]
        values = answer_scores.each(true, found, self.settings.language)
        drawn = list(draws)
        return {name: np.array([x[d].mean() for d in drawn]) for name, x in values.items()}

    def preview(self, row: Batch) -> list[Piece]:
        """The tokens of a row; the first and the last token of the answer count."""
        ends = {int(x) for x in row["targets"]}
        pieces = super().preview(row)
        return [
            piece._replace(counts=i in ends and bool(row["valid"]), target=piece.text.strip())
            if i in ends
            else piece
            for i, piece in enumerate(pieces)
        ]
