"""The fields of a body that say how to generate, as arguments of `Settings`."""

from __future__ import annotations

import json
import re
from typing import Any

from jaxlm.generation.settings import Constraint
from jaxlm.serve.fields import Fields, check_text, kind_of

# stop strings of one request, and the characters of one
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
# serialised characters of a schema, a pattern or a grammar
MAX_CONSTRAINT = 100_000

# fields that name somebody or something and change nothing
_LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")


def read_sampling(body: Fields, vocab_size: int) -> dict[str, Any]:
    """Arguments of `Settings` that the body gives; what it does not give is absent."""
    given: dict[str, Any] = dict(
        temperature=body.number("temperature", 0, 2),
        top_p=_above_zero(body, "top_p"),
        min_p=body.number("min_p", 0, 1),
        top_k=_top_k(body),
        presence_penalty=body.number("presence_penalty", -2, 2),
        frequency_penalty=body.number("frequency_penalty", -2, 2),
        repetition_penalty=_above_zero(body, "repetition_penalty", 10),
        no_repeat_ngram=body.whole("no_repeat_ngram_size", 0, 1024),
        min_new_tokens=body.whole("min_tokens", 0),
        seed=body.whole("seed", -(2**63), 2**63 - 1),
        logit_bias=_logit_bias(body, vocab_size),
        stop=_stops(body),
    )
    return {name: value for name, value in given.items() if value is not None}


def read_labels(body: Fields) -> None:
    """Takes fields that change nothing, and refuses those that would ask for what is not offered."""
    for name in _LABELS:
        body.take(name)
    body.absent("store", "answers are not stored", (False,))
    body.absent("service_tier", "there is one tier", ("auto", "default"))


def read_stream(body: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether the stream's last chunk has the usage."""
    stream = body.flag("stream")
    options = body.object("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise body.wrong("stream_options", "is only for stream=true")
    usage = options.flag("include_usage")
    options.absent("include_obfuscation", "is not offered", (False,))
    options.end()
    return stream, usage


def read_constraint(body: Fields) -> Constraint | None:
    """What the text must be: response_format, or vLLM's structured_outputs."""
    wanted = [_response_format(body), _structured_outputs(body)]
    both = [constraint for constraint in wanted if constraint is not None]
    if len(both) > 1:
        raise body.wrong("structured_outputs", "contradicts response_format: give one of them")
    return both[0] if both else None


def _response_format(body: Fields) -> Constraint | None:
    wanted = body.object("response_format")
    if wanted is None:
        return None
    kinds = ("text", "json_object", "json_schema", "regex", "grammar")
    kind = wanted.require("type", wanted.choice("type", kinds))
    constraint = None
    if kind == "json_object":
        constraint = Constraint(json_schema=True)
    elif kind == "json_schema":
        schema = wanted.require("json_schema", wanted.object("json_schema"))
        for label in ("name", "description"):
            schema.text(label)
        schema.flag("strict")
        value = schema.require("schema", schema.take("schema"))
        constraint = Constraint(json_schema=_schema(schema, "schema", value))
        schema.end()
    elif kind == "regex":
        constraint = Constraint(regex=_pattern(wanted, "pattern"))
    elif kind == "grammar":
        constraint = Constraint(grammar=_pattern(wanted, "grammar"))
    wanted.end()
    return constraint


def _structured_outputs(body: Fields) -> Constraint | None:
    wanted = body.object("structured_outputs")
    if wanted is None:
        return None
    schema, choices = wanted.take("json"), wanted.take("choice")
    given = dict(
        json_schema=None if schema is None else _schema(wanted, "json", schema),
        regex=_pattern(wanted, "regex", required=False),
        grammar=_pattern(wanted, "grammar", required=False),
    )
    if choices is not None:
        if not isinstance(choices, list) or not choices:
            raise wanted.wrong("choice", "must be a list of texts that is not empty")
        texts = [check_text(f"{wanted.path('choice')}[{i}]", c) for i, c in enumerate(choices)]
        given["choice"] = "|".join(re.escape(text) for text in texts)
    wanted.end()
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise body.wrong("structured_outputs", "must have one of json, regex, grammar, choice")
    [(name, value)] = named.items()
    fields: dict[str, Any] = {"regex" if name == "choice" else name: value}
    return Constraint(**fields)


def _schema(fields: Fields, name: str, value: Any) -> Any:
    """A JSON schema, which is not too large for the compiler of grammars."""
    if not isinstance(value, dict):
        raise fields.wrong(name, f"must be a JSON schema, not {kind_of(value)}")
    if len(json.dumps(value)) > MAX_CONSTRAINT:
        raise fields.wrong(name, f"is longer than {MAX_CONSTRAINT:,} characters")
    return value


def _pattern(fields: Fields, name: str, required: bool = True) -> str | None:
    value = fields.text(name)
    if required:
        fields.require(name, value)
    if value is not None and not 0 < len(value) <= MAX_CONSTRAINT:
        raise fields.wrong(name, f"must have between 1 and {MAX_CONSTRAINT:,} characters")
    return value


def _above_zero(body: Fields, name: str, high: float = 1) -> float | None:
    value = body.number(name, 0, high)
    if value == 0:
        raise body.wrong(name, f"must be above 0 and at most {high}, not 0")
    return value


def _top_k(body: Fields) -> int | None:
    """The number of tokens to choose from; -1 and 0 are other servers' ways to say all."""
    value = body.whole("top_k", -1)
    return value if value is not None and value > 0 else None


def _logit_bias(body: Fields, vocab_size: int) -> dict[int, float] | None:
    """Token id, written as text, -> what is added to its logit."""
    value = body.take("logit_bias")
    if value is None:
        return None
    bias = {}
    entries = Fields(value, body.path("logit_bias"))
    for name in value:
        if not re.fullmatch("[0-9]{1,9}", name) or int(name) >= vocab_size:
            raise entries.wrong(name[:40], f"is not a token id below {vocab_size}")
        amount = entries.number(name, -100, 100)
        bias[int(name)] = entries.require(name, amount)
    return bias


def _stops(body: Fields) -> tuple[str, ...] | None:
    value = body.take("stop")
    if value is None:
        return None
    path = body.path("stop")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise body.wrong("stop", f"must be a text or a list of texts, not {kind_of(value)}")
    if len(texts) > MAX_STOPS:
        raise body.wrong("stop", f"has {len(texts)} texts; at most {MAX_STOPS} are allowed")
    for i, text in enumerate(texts):
        check_text(path if isinstance(value, str) else f"{path}[{i}]", text)
        if not 0 < len(text) <= MAX_STOP_LENGTH:
            raise body.wrong("stop", f"must have texts of 1 to {MAX_STOP_LENGTH} characters")
    return tuple(texts)
