"""Requests to the engine: what is asked for, how far each one is, and the tokens that come back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from jaxlm.generation.constraints import Matcher
from jaxlm.generation.settings import Settings

_LOG = logging.getLogger("jaxlm.generation")
# why a request ends: an end token or a finished constraint, the maximum length, or a constraint that fails, as a
# grammar does that grows beyond llguidance's limits
Reason = Literal["stop", "length", "error"]


class Request(NamedTuple):
    """A prompt and how to continue it."""

    # ids; at least one
    prompt: Sequence[int]
    settings: Settings = Settings()
    # ids of the input of an encoder-decoder
    source: Sequence[int] | None = None


class Token(NamedTuple):
    """A token of a request."""

    request: int
    id: int
    # of this token and of the most probable ones, as the model gives them: before penalties and temperature
    log_prob: float | None = None
    top: list[tuple[int, float]] | None = None
    # set on the last token of a request
    reason: Reason | None = None


@dataclasses.dataclass
class Row:
    """A request that is being processed."""

    number: int
    request: Request
    # tokens that it may get, within the model's length
    limit: int
    # of the prompt, and those that were read after it
    tokens: list[int]
    slot: int | None = None
    # tokens asked for; some may not be read yet
    asked: int = 0
    matcher: Matcher | None = None
    cancelled: bool = False
    # whether its caches are those of a text beyond `rope_switch`
    is_long: bool = False

    @property
    def processed(self) -> int:
        """Tokens that the caches have when it comes into a slot: all but the newest."""
        return len(self.tokens) - 1

    @property
    def written(self) -> int:
        """Tokens that were read."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def length(self) -> int:
        """Tokens of the text once all that were asked for are read."""
        return len(self.request.prompt) + self.asked

    @property
    def source_length(self) -> int:
        """Tokens of the source; 0 without one."""
        return len(self.request.source or ())

    def forced(self) -> int:
        """The token that the settings force next, or -1."""
        settings = self.request.settings
        if self.asked == 0 and settings.forced_first is not None:
            return settings.forced_first
        if self.asked == self.limit - 1 and settings.forced_last is not None:
            return settings.forced_last
        return -1

    def read(self, token: int) -> Reason | None:
        """Takes the next token; returns why the request ends with it, if it does."""
        self.tokens.append(token)
        if token in self.request.settings.stop_ids:
            return "stop"
        if self.matcher is not None:
            try:
                if self.matcher.accept(token):
                    return "stop"
            except Exception:
                # of this request alone: the others go on
                _LOG.exception("the constraint of a request failed; the request ends")
                return "error"
        return "length" if self.written == self.limit else None
