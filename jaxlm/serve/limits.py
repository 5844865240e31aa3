"""What one request, one client and the server as a whole may use."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; what exceeds one is refused with a status that clients know."""

    # bytes of a request's body; more: 413
    body_bytes: int = 4 << 20
    # tokens of one prompt, default: what the model takes; more: 400
    prompt_tokens: int | None = None
    # new tokens of one answer, default: what the model takes; more: 400
    new_tokens: int | None = None
    # answers of one request, which is prompts times n, or texts to embed; more: 400
    answers: int = 128
    # answers that wait for a slot; more: 429 for a client that already has the most waiting
    queue: int = 256
    # seconds from the first byte of a request to the last of its answer; more: 504, or an error event in a stream
    seconds: float = 600.0
    # seconds for a request's headers, then again for its body; more: the connection is closed, or 408
    receive_seconds: float = 20.0
    # open connections; more: 503
    connections: int = 4096
    # seconds that running requests have to finish after SIGTERM
    grace_seconds: float = 60.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"limits.{field.name}={value} must be above 0")
