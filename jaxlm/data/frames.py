"""The control tokens around a text or a pair of texts, as a tokenizer's own template adds them."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Frame:
    """Ids of the control tokens at each place of a text, and of a pair of texts."""

    # before and after a single text
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    # before, between and after the texts of a pair
    pair: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())


def of(tokenizer: Any) -> Frame:
    """The frame of a `Tokenizer`, by its template (in transformers: what `tokenizer(text, pair)` adds).

    Raises:
        ValueError: the template changes the texts.
    """
    first, second = tokenizer.encode("a"), tokenizer.encode("b")
    encode = tokenizer.text_backend.encode
    single = _cut(encode("a", add_special_tokens=True).ids, [first])
    both = _cut(encode("a", "b", add_special_tokens=True).ids, [first, second])
    if single is None or both is None:
        raise ValueError("the tokenizer changes a text to which it adds control tokens")
    return Frame(single[0], single[1], (both[0], both[1], both[2]))


def _cut(ids: list[int], texts: list[list[int]]) -> list[tuple[int, ...]] | None:
    """The parts of the ids before, between and after the texts; None if they are not there in this order."""
    parts, start = [], 0
    for text in texts:
        ends = range(start, len(ids) - len(text) + 1)
        at = next((i for i in ends if ids[i : i + len(text)] == text), None)
        if at is None:
            return None
        parts.append(tuple(ids[start:at]))
        start = at + len(text)
    return [*parts, tuple(ids[start:])]
