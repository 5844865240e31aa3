"""The kinds of heads: jaxlm model, how config.json configures it, and the hub's name for its task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxlm.config import ComputeConfig, DecoderConfig, EncoderConfig
from jaxlm.models import heads, pretraining
from jaxlm.models.twice_read import Reading

Kind = Literal[
    "none",
    "causal_lm",
    "masked_lm",
    "seq2seq",
    "classifier",
    "tokens",
    "span",
    "detector",
    "pairs",
    "twice_read_classifier",
    "twice_read_span",
]


def _classes(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    names, count = settings.get("id2label"), settings.get("num_labels")
    if names and count is not None and len(names) != count:
        raise ValueError(
            f"num_labels={count} is not the number of names in id2label, {len(names)}: correct one of them"
        )
    # the default in transformers is two classes
    return {"num_classes": len(names) if names else count or 2}


def _classes_and_pooling(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    pooling = "last" if isinstance(config, DecoderConfig) else "first"
    if pooling_is_a_setting(config) and settings.get("classifier_pooling") == "mean":
        pooling = "mean"
    return _classes(config, settings) | {"pooling": pooling}


def _detector_activation(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    # ELECTRA's other heads have gelu, whatever its MLPs have
    return {"activation": config.activation_function}


def _reading(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    ids: dict[str, Any] = {}
    for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
        # mBART has no such token
        if name == "decoder_start_token_id" and settings.get("model_type") == "mbart":
            continue
        ids[name] = settings.get(name)
        if type(ids[name]) is not int:
            raise ValueError(f"{name}={ids[name]!r} must be one token: the model reads texts by it")
    start = ids.get("decoder_start_token_id")
    return {"reading": Reading(ids["eos_token_id"], start, ids["pad_token_id"])}


def _classes_and_reading(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return _classes(config, settings) | _reading(config, settings)


def pooling_is_a_setting(config: Any) -> bool:
    """Whether config.json says how a classifier pools (ModernBERT); for other models it depends on the family."""
    return isinstance(config, EncoderConfig) and config.head_norm


@dataclasses.dataclass(frozen=True)
class HeadKind:
    """A kind of head."""

    # a class in `models.heads` or `models.pretraining`
    model: type[Any]
    # the hub's name for the task
    pipeline: str
    # (jaxlm config, config.json) -> further arguments of the model
    options: Callable[[Any, Mapping[str, Any]], dict[str, Any]] = lambda config, settings: {}


KINDS: dict[Kind, HeadKind] = {
    "none": HeadKind(heads.Headless, "feature-extraction"),
    "causal_lm": HeadKind(heads.CausalLM, "text-generation"),
    "masked_lm": HeadKind(heads.MaskedLM, "fill-mask"),
    "seq2seq": HeadKind(heads.Seq2SeqLM, "text2text-generation"),
    "classifier": HeadKind(heads.Classifier, "text-classification", _classes_and_pooling),
    "tokens": HeadKind(heads.TokenClassifier, "token-classification", _classes),
    "span": HeadKind(heads.SpanQA, "question-answering"),
    "detector": HeadKind(heads.Detector, "feature-extraction", _detector_activation),
    "twice_read_classifier": HeadKind(
        heads.TwiceReadClassifier, "text-classification", _classes_and_reading
    ),
    "twice_read_span": HeadKind(heads.TwiceReadSpanQA, "question-answering", _reading),
    # masked tokens and pairs of texts
    "pairs": HeadKind(pretraining.SentencePairLM, "fill-mask"),
}


def build(kind: Kind, config: Any, settings: Mapping[str, Any], compute: ComputeConfig) -> Any:
    """The model of a kind that config.json describes."""
    head = KINDS[kind]
    return head.model(config, compute=compute, **head.options(config, settings))


def kind_of(model: Any) -> Kind:
    """The kind of head of a model.

    Raises:
        ValueError: transformers has no class with such a head.
    """
    for kind, head in KINDS.items():
        if type(model) is head.model:
            return kind
    raise ValueError(f"transformers has no class for a {type(model).__name__}")
