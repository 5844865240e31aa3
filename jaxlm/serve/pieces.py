"""Tokens as clients see them in log-probabilities: their bytes and their texts."""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Collection

from jaxlm.data.tokenizer import Tokenizer


class Pieces:
    """The bytes of each token of a vocabulary."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._names = {i: name for name, i in tokenizer.vocab.items()}
        self._added = tokenizer.backend.get_added_tokens_decoder()
        self._kinds = _decoder_kinds(tokenizer)
        self.bytes = functools.lru_cache(maxsize=1 << 16)(self._bytes)

    def _bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].content.encode()
        name = self._names.get(token)
        if name is None:  # a row of the table that the tokenizer does not use
            return f"<{token}>".encode()
        if "ByteLevel" in self._kinds:
            table = _byte_level()
            if all(c in table for c in name):
                return bytes(table[c] for c in name)
            return name.encode()
        if "ByteFallback" in self._kinds and re.fullmatch("<0x[0-9A-F]{2}>", name):
            return bytes([int(name[3:5], 16)])
        if "WordPiece" in self._kinds:
            return (name[2:] if name.startswith("##") else " " + name).encode()
        return name.replace("▁", " ").encode()

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


def _decoder_kinds(tokenizer: Tokenizer) -> set[str]:
    """Types of the tokenizer's decoders."""
    decoder = json.loads(tokenizer.backend.to_str()).get("decoder") or {}
    return {part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part}


@functools.cache
def _byte_level() -> dict[str, int]:
    """Character of a byte-level vocabulary -> byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
