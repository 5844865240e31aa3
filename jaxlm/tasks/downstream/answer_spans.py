"""The best answer in each window of a context, and of all windows of a question.

Letters: B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.ops import spans
from jaxlm.tasks.task import Outputs


class EndLogits(NamedTuple):
    """Logits of an answer's first and last token; which tokens are of the context, and which says "no answer"."""

    start: Float[Array, "B T"]
    end: Float[Array, "B T"]
    in_context: Bool[Array, "B T"]
    is_none: Bool[Array, "B T"]

    @classmethod
    def of(cls, logits: Float[Array, "B T 2"], batch: dict) -> EndLogits:
        """Of a model's outputs for rows of `context_windows`."""
        logits = logits.astype(jnp.float32)
        in_context = batch["characters"][..., 1] > batch["characters"][..., 0]
        is_none = jnp.arange(logits.shape[1]) == batch["no_answer"][:, None]
        return cls(logits[..., 0], logits[..., 1], in_context, is_none)

    def possible(self) -> list[Float[Array, "B T"]]:
        """Both, without the tokens that are no end."""
        allowed = self.in_context | self.is_none
        return [jnp.where(allowed, x, spans.EXCLUDED) for x in (self.start, self.end)]


def best(
    logits: EndLogits, characters: Int[Array, "B T 2"], longest: int
) -> dict[str, Float[Array, " B"] | Int[Array, "B 2"]]:
    """The best span of each window: its score, probability and characters; and the score of no answer.

    Args:
        logits: of the ends.
        characters: of the context, that each token stands for.
        longest: most tokens of a span.
    """
    span = spans.best_span(logits.start, logits.end, logits.in_context, longest)
    take = lambda x, at: jnp.take_along_axis(x, at[:, None], 1)[:, 0]
    none = sum(jnp.where(logits.is_none, x, 0.0).sum(1) for x in (logits.start, logits.end))
    first, last = (jax.nn.log_softmax(x) for x in logits.possible())
    ends = take(characters[..., 0], span.first), take(characters[..., 1], span.last)
    return {
        "score": span.score,
        "probability": jnp.exp(take(first, span.first) + take(last, span.last)),
        "characters": jnp.stack(ends, 1),
        "none": jnp.asarray(none),
    }


def answer(outputs: Outputs, context: str, settings: Any) -> dict[str, Any]:
    """The answer to a question as JSON values, from what `best` found in its windows; see `Answering.read`."""
    window = max(outputs, key=lambda out: float(out["score"]))
    start, end = (int(x) for x in window["characters"])
    found = float(window["score"]) > spans.EXCLUDED / 2
    text = context[start:end] if found else ""
    result: dict[str, Any] = {"answer": text, "start": start, "end": end}
    if found:
        result["score"] = round(float(window["score"]), 4)
    result["probability"] = round(float(window["probability"]), 6) if found else 0.0
    none = min(float(out["none"]) for out in outputs) - float(window["score"])
    if settings.unanswerable:
        result |= {"no_answer_score": round(none, 4), "candidate": text}
    if not found or (settings.unanswerable and none > settings.null_threshold):
        result |= {"answer": "", "start": None, "end": None}
    return result


# the task of the hub's pipelines and their names of settings, where they have one -> ours
_TASK = "question-answering"
_NAMES: dict[str, tuple[str, Any]] = {
    "handle_impossible_answer": ("unanswerable", bool),
    "max_answer_len": ("max_answer_tokens", int),
    "null_threshold": ("null_threshold", int | float),
}


def exported(settings: Any) -> dict[str, Any]:
    """The fields of config.json that keep how answers are chosen; see `settings_of`."""
    given = {theirs: getattr(settings, ours) for theirs, (ours, _) in _NAMES.items()}
    return {"task_specific_params": {_TASK: given}}


def settings_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of answers that `exported` wrote into a config.json, by name; without any empty."""
    tasks = about.get("task_specific_params")
    given = tasks.get(_TASK) if isinstance(tasks, dict) else None
    if not isinstance(given, dict):
        return {}
    return {
        ours: given[theirs]
        for theirs, (ours, kind) in _NAMES.items()
        if isinstance(given.get(theirs), kind)
    }
