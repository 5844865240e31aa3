"""The bytes that each token of a vocabulary adds to the text."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from jaxlm.data.tokenizer import Tokenizer

# Decoders of `tokenizers` that only join the tokens.
_JOINING = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}


class TokenBytes:
    """The bytes of each token; control tokens and other added ones count as their names."""

    def __init__(self, tokenizer: Tokenizer):
        """Reads the vocabulary and the decoder."""
        self._special = tokenizer.special_ids
        self._names = {i: name for name, i in tokenizer.vocab.items()}
        self._added = tokenizer.backend.get_added_tokens_decoder()
        decoder = json.loads(tokenizer.backend.to_str()).get("decoder") or {}
        parts: list[dict[str, Any]] = decoder.get("decoders", [decoder])
        self._kinds = {part.get("type") for part in parts}
        self._spaces = {part["replacement"] for part in parts if part.get("type") == "Metaspace"}
        self._spaces |= {
            part["pattern"]["String"]
            for part in parts
            if part.get("type") == "Replace" and part["content"] == " "
        }

    def check_joins(self) -> None:
        """Raises ValueError if what a token adds to the text depends on its neighbours."""
        if self._kinds <= _JOINING and (self._spaces or "ByteLevel" in self._kinds):
            return
        names = ", ".join(sorted(str(kind) for kind in self._kinds))
        raise ValueError(
            f"what the tokens of this tokenizer add to the text depends on their neighbours (decoder {names})"
        )

    def get(self, token: int) -> bytes | None:
        """The bytes of a token; None if the vocabulary has none with this id."""
        if token in self._added:
            return self._added[token].content.encode()
        name = self._names.get(token)
        if name is None:
            return None
        if token in self._special:
            return name.encode()
        if "ByteLevel" in self._kinds:
            table = _byte_level()
            return bytes(table[c] for c in name) if set(name) <= table.keys() else name.encode()
        if "ByteFallback" in self._kinds and re.fullmatch("<0x[0-9A-F]{2}>", name):
            return bytes([int(name[3:5], 16)])
        if "WordPiece" in self._kinds:
            return (name[2:] if name.startswith("##") else " " + name).encode()
        for space in self._spaces or {"▁"}:
            name = name.replace(space, " ")
        return name.encode()


@functools.cache
def _byte_level() -> dict[str, int]:
    """Character of a byte-level vocabulary -> byte (GPT-2's encoder.py, bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
