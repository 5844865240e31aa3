"""How to write: the settings of a request, with the meaning that transformers and OpenAI's protocol give them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

# Number of the most probable tokens whose log-probabilities can be returned.
MAX_TOP = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraint:
    """What the text must match: exactly one of these is set; needs `llguidance` (the extra `generate`)."""

    # a JSON schema; True: any JSON object
    json_schema: Mapping[str, Any] | Literal[True] | None = None
    regex: str | None = None
    # in Lark's notation
    grammar: str | None = None

    def __post_init__(self):
        given = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a constraint is one of json_schema, regex and grammar, not {' and '.join(given) or 'none'}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one request."""

    # the model's length permitting
    max_new_tokens: int = 256
    # no end token before this many tokens
    min_new_tokens: int = 0
    # logits are divided by it; 0: always the most probable token
    temperature: float = 1.0
    # sample from this many of the most probable tokens
    top_k: int | None = None
    # sample from the fewest most probable tokens that sum to this
    top_p: float | None = None
    # sample from tokens at least this times as probable as the best one
    min_p: float | None = None
    # divides the logits of tokens in prompt and text
    repetition_penalty: float = 1.0
    # subtracted from the logits of tokens in the text, once and for each time
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    # no sequence of this many tokens twice; 0: any
    no_repeat_ngram: int = 0
    # added to the logits of these ids
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    # ids that are never written, ids that are not written first, the only ids that are written
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    allowed: tuple[int, ...] | None = None
    # the first token, and the last one if the text is cut at max_new_tokens
    forced_first: int | None = None
    forced_last: int | None = None
    # tokens that end the text and do not belong to it
    stop_ids: tuple[int, ...] = ()
    # strings that end the text and do not belong to it
    stop: tuple[str, ...] = ()
    # the same seed gives the same text
    seed: int = 0
    # return log-probabilities of the chosen tokens, and of this many of the most probable ones
    logprobs: int | None = None
    constraint: Constraint | None = None

    def __post_init__(self):
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            kind = int if name in _INTEGERS else float
            if isinstance(value, bool) or not isinstance(value, (int, kind)):
                what = "a whole number" if kind is int else "a number"
                raise ValueError(f"{name} must be {what}, not {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name}={value} is out of range: {_range(low, high)}")
        if self.repetition_penalty == 0:
            raise ValueError("repetition_penalty=0 is out of range: more than 0")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens={self.max_new_tokens}"
            )
        if not all(isinstance(text, str) and text for text in self.stop) or isinstance(
            self.stop, str
        ):
            raise ValueError(f"stop must be strings that are not empty, not {self.stop!r}")
        if any(not math.isfinite(bias) for bias in self.logit_bias.values()):
            raise ValueError("logit_bias must be finite numbers; use suppress to exclude a token")
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise ValueError(f"constraint must be a Constraint, not {self.constraint!r:.60}")
        if self.allowed is not None and not set(self.allowed) - set(self.suppress):
            raise ValueError("allowed leaves no token")

    def bias(self, vocab_size: int) -> np.ndarray | None:
        """What `logit_bias`, `allowed` and `suppress` add to the logits [V]; None: nothing."""
        if not self.logit_bias and not self.suppress and self.allowed is None:
            return None
        row = np.full(vocab_size, 0 if self.allowed is None else -np.inf, np.float32)
        row[list(self.allowed or ())] = 0
        for token, bias in self.logit_bias.items():
            row[token] += bias
        row[list(self.suppress)] = -np.inf
        return row

    def check_ids(self, vocab_size: int) -> None:
        """Raises ValueError if an id is not in the vocabulary."""
        lists = {
            "logit_bias": tuple(self.logit_bias),
            "suppress": self.suppress,
            "begin_suppress": self.begin_suppress,
            "allowed": self.allowed or (),
            "stop_ids": self.stop_ids,
            "forced_first": _one(self.forced_first),
            "forced_last": _one(self.forced_last),
        }
        for name, ids in lists.items():
            check_ids(ids, vocab_size, name)
        if len(set(self.suppress)) >= vocab_size:
            raise ValueError("suppress leaves no token")


class _Range(NamedTuple):
    name: str
    low: float
    high: float


_RANGES = (
    _Range("max_new_tokens", 1, math.inf),
    _Range("min_new_tokens", 0, math.inf),
    _Range("temperature", 0, 100),
    _Range("top_k", 1, math.inf),
    _Range("top_p", 0, 1),
    _Range("min_p", 0, 1),
    _Range("repetition_penalty", 0, 100),
    _Range("presence_penalty", -100, 100),
    _Range("frequency_penalty", -100, 100),
    _Range("no_repeat_ngram", 0, 1000),
    _Range("seed", 0, 2**32 - 1),
    _Range("logprobs", 0, MAX_TOP),
)
_OPTIONAL = ("top_k", "top_p", "min_p", "logprobs")
_INTEGERS = ("max_new_tokens", "min_new_tokens", "top_k", "no_repeat_ngram", "seed", "logprobs")


def check_ids(ids: Any, vocab_size: int, name: str) -> None:
    """Raises ValueError unless all ids are in the vocabulary: JAX would silently take the nearest one."""
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
            raise ValueError(f"{name}: {token!r} is not one of the {vocab_size:,} token ids")


def _one(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)


def _range(low: float, high: float) -> str:
    return f"at least {low:,}" if high == math.inf else f"{low:,} to {high:,}"
