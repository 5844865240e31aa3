"""Tokens of a request as text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation.settings import Settings

# Tokens of the prompt that the text is read after: whether a space precedes a word depends on what is before it.
CONTEXT = 8


class TextStream:
    """Turns tokens into text that is certain: no halves of characters, and nothing from a stop string on."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings, prompt: Sequence[int] = ()):
        """Begins after a prompt; without one at the start of a text.

        Args:
            tokenizer: of the model.
            settings: of the request, for its stop strings and end tokens.
            prompt: the tokens that the text continues; none for a new text, such as a translation or an answer.
        """
        self._tokenizer, self._settings = tokenizer, settings
        self._ids = list(prompt[-CONTEXT:])
        # the text of ids[:known] is given out; it is read from `start` on, to decode few tokens at a time
        self._start, self._known = 0, len(self._ids)
        # text that may be the beginning of a stop string
        self._held = ""
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that is certain with this token; may be empty."""
        if self.stopped or token_id in self._settings.stop_ids:
            return ""
        self._ids.append(token_id)
        text = self._decode(len(self._ids))
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""  # part of a character
        new = text[len(self._decode(self._known)) :]
        self._start, self._known = self._known, len(self._ids)
        return self._release(new)

    def finish(self) -> str:
        """The rest of the text, when no token follows."""
        if self.stopped:
            return ""
        new = self._decode(len(self._ids))[len(self._decode(self._known)) :]
        self._known = len(self._ids)
        released = self._release(new)
        if self.stopped:
            return released
        rest, self._held = self._held, ""
        return released + rest

    def _decode(self, end: int) -> str:
        return self._tokenizer.decode(self._ids[self._start : end])

    def _release(self, new: str) -> str:
        """New text without a stop string, and without what may be the beginning of one."""
        text = self._held + new
        ends = [i for i in (text.find(stop) for stop in self._settings.stop) if i >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        held = max(
            (
                size
                for stop in self._settings.stop
                for size in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:size])
            ),
            default=0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
