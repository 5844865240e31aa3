"""What stands around texts: control tokens that a tokenizer's own template adds, those of an encoder-decoder's pairs,
and a prefix."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

# control tokens before and after a text
Edges = tuple[tuple[int, ...], tuple[int, ...]]
# the entry of task_specific_params in which the prefix of sources stands, as T5's has "summarization"
_TASK = "text_to_text"


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


def of_rows(tokenizer: Any) -> Frame:
    """The frame of a task's rows: the tokenizer's if it is set, else [CLS] and [SEP] as BERT has them.

    Where there is no token before a text, as in T5, only what is behind it is left.
    """
    if tokenizer.frame is not None:
        return tokenizer.frame
    cls, sep = (() if i is None else (i,) for i in (tokenizer.cls_id, tokenizer.sep_id))
    return Frame(cls, sep, (cls, sep, sep))


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


class PairEdges(NamedTuple):
    """The control tokens around sources and around targets; those of targets do not include the decoder's start."""

    source: Edges
    target: Edges


def pair_edges(tokenizer: Any) -> PairEdges:
    """How sources and targets are framed: as the tokenizer's file does it (T5 and Marian: eos; BART: bos and eos).

    A file that adds nothing, as ours, frames both with an eos token. A token that the decoder starts with anyway is not
    written again, and a target always ends in eos, by which the decoder stops.

    Raises:
        ValueError: there is no eos token, or the file adds a token of a language, which is another one on each side.
    """
    frame = of(tokenizer)
    before, after = frame.before, frame.after
    eos = tokenizer.eos_id
    if eos is None:
        raise ValueError("text to text needs a tokenizer with an eos token; this one has none")
    known = {tokenizer.bos_id, tokenizer.cls_id, tokenizer.sep_id, eos}
    for token in (*before, *after):
        if token not in known:
            name = tokenizer.backend.id_to_token(token)
            raise ValueError(
                f"the tokenizer adds {name!r} to texts: models that name languages by such tokens (mBART, M2M100) "
                "cannot be fine-tuned on text to text yet; take one without (T5, BART, Marian)"
            )
    if not before and not after:
        after = (eos,)
    first = () if before == (tokenizer.start_id,) else before
    return PairEdges((before, after), (first, (eos,)))


def with_prefix(prefix: str) -> dict[str, Any]:
    """The fields of config.json that keep the text before every source."""
    return {"task_specific_params": {_TASK: {"prefix": prefix}}} if prefix else {}


def prefix_of(settings: Mapping[str, Any]) -> str:
    """The prefix that `with_prefix` wrote into a config.json; without one an empty text."""
    tasks = settings.get("task_specific_params")
    task = tasks.get(_TASK) if isinstance(tasks, dict) else None
    prefix = task.get("prefix") if isinstance(task, dict) else None
    return prefix if isinstance(prefix, str) else ""
