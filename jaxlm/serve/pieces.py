"""Tokens as clients see them in log-probabilities: their bytes and their texts."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from jaxlm.data.token_bytes import TokenBytes
from jaxlm.data.tokenizer import Tokenizer


class Pieces:
    """The bytes of each token of a vocabulary."""

    def __init__(self, tokenizer: Tokenizer):
        self._table = TokenBytes(tokenizer)

    def bytes(self, token: int) -> bytes:
        """The bytes of a token; for a row of the table that the tokenizer does not use, its number."""
        value = self._table.get(token)
        return f"<{token}>".encode() if value is None else value

    def text(self, token: int) -> str:
        """The text of a token; OpenAI's notation of bytes for a token that is part of a character."""
        value = self.bytes(token)
        try:
            return value.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in value)


class Offsets:
    """Where each token begins in the text, in characters."""

    def __init__(self, pieces: Pieces, start: int = 0, unwritten: Collection[int] = ()):
        """Args:
        unwritten: control tokens that are not part of the text.
        """
        self._pieces = pieces
        self._unwritten = unwritten
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = start

    def next(self, token: int) -> int:
        """The offset of the next token."""
        value = self._pieces.bytes(token)
        if not value or value[0] & 0xC0 != 0x80:
            # a character that was begun will not be finished: it becomes a replacement character
            self._at += len(self._decoder.decode(b"", final=True))
        offset = self._at
        if token not in self._unwritten:
            self._at += len(self._decoder.decode(value))
        return offset
