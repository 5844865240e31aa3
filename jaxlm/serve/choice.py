"""One answer while it is written: tokens to text, log-probabilities and the reason to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.generation.requests import Token
from jaxlm.generation.settings import Settings
from jaxlm.generation.text import TextStream
from jaxlm.serve.pieces import Offsets, Pieces


@dataclasses.dataclass(frozen=True)
class Scored:
    """A token with its log-probability, those of the most likely ones, and where it begins in the text."""

    id: int
    log_prob: float | None
    top: list[tuple[int, float]]
    offset: int


@dataclasses.dataclass(frozen=True)
class Part:
    """What a step adds to an answer."""

    text: str
    tokens: list[Scored]


class Choice:
    """The answer with this index."""

    def __init__(
        self,
        index: int,
        settings: Settings,
        pieces: Pieces,
        tokenizer: Any,
        *,
        prompt: Sequence[int] = (),
        start: int = 0,
        spelled: Mapping[int, str] | None = None,
    ):
        """Args:
        prompt: ids that the text continues; none for a new text.
        start: characters before the answer, for offsets.
        spelled: control tokens that are part of the text, by name, such as those around calls of tools.
        """
        self.index = index
        self._tokenizer = tokenizer
        self._spelled = spelled or {}
        # stop, length, or None while it is written
        self.reason: str | None = None
        # every generated token, the end token too
        self.generated = 0
        self._settings = settings
        self._stream = TextStream(tokenizer, settings, prompt)
        unwritten = tokenizer.special_ids - self._spelled.keys()
        self._offsets = Offsets(pieces, start, unwritten)
        self._end = start
        self._held: list[Scored] = []

    def end(self) -> None:
        """Completes it before the engine does."""
        self.reason = "stop"

    def add(self, token: Token) -> Part:
        """What the token makes certain; nothing once the answer is complete."""
        if self.reason is not None:
            return Part("", [])
        self.generated += 1
        ends = token.reason == "stop" and token.id in self._settings.stop_ids
        text = "" if ends else self._add_text(token.id)
        if not ends:
            offset = self._offsets.next(token.id)
            self._held.append(Scored(token.id, token.log_prob, list(token.top or []), offset))
        if self._stream.stopped:
            self.reason = "stop"
        elif token.reason is not None:
            text += self._stream.finish()
            self.reason = "stop" if self._stream.stopped else token.reason
        self._end += len(text)
        return Part(text, self._release())

    def _add_text(self, token: int) -> str:
        if token not in self._spelled:
            return self._stream.add(token)
        text = self._stream.finish() + self._spelled[token]
        self._stream = TextStream(self._tokenizer, self._settings)
        return text

    def _release(self) -> list[Scored]:
        """Tokens whose text has been sent; at the end all but those that belong to a stop string."""
        if self._settings.logprobs is None:
            self._held = []
            return []
        whole = self.reason is not None and not self._stream.stopped
        sent = [token for token in self._held if whole or token.offset < self._end]
        self._held = self._held[len(sent) :] if self.reason is None else []
        return sent
