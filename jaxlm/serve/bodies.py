"""Parts of answers that several endpoints share."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from jaxlm.serve.choice import Scored
from jaxlm.serve.pieces import Pieces

# what OpenAI's protocol has for minus infinity, which JSON cannot say
_NEVER = -9999.0


def head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """The fields that all chunks of an answer have."""
    identifier = f"{prefix}-{secrets.token_hex(12)}"
    return dict(id=identifier, object=kind, created=int(time.time()), model=model)


def usage(prompt: int, generated: int) -> dict[str, int]:
    """Numbers of tokens."""
    return dict(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated)


def finite(log_prob: float | None) -> float | None:
    """The log-probability, as JSON can write it."""
    if log_prob is None or math.isfinite(log_prob):
        return log_prob
    return _NEVER


def completion_logprobs(tokens: Sequence[Scored], pieces: Pieces) -> dict[str, Any]:
    """`logprobs` of /v1/completions."""
    tops: list[dict[str, float | None] | None] = []
    for token in tokens:
        if token.log_prob is None:
            tops.append(None)
            continue
        top: dict[str, float | None] = {}
        # the most likely first, so that it stays where two tokens have the same text
        for i, value in [*token.top, (token.id, token.log_prob)]:
            top.setdefault(pieces.text(i), finite(value))
        tops.append(top)
    return dict(
        tokens=[pieces.text(token.id) for token in tokens],
        token_logprobs=[finite(token.log_prob) for token in tokens],
        top_logprobs=tops,
        text_offset=[token.offset for token in tokens],
    )


def chat_logprobs(tokens: Sequence[Scored], pieces: Pieces) -> dict[str, Any]:
    """`logprobs` of /v1/chat/completions."""

    def entry(i: int, value: float | None) -> dict[str, Any]:
        return dict(token=pieces.text(i), logprob=finite(value), bytes=list(pieces.bytes(i)))

    content = [
        entry(token.id, token.log_prob) | dict(top_logprobs=[entry(*pair) for pair in token.top])
        for token in tokens
    ]
    return dict(content=content, refusal=None)
