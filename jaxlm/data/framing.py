"""What stands around texts: control tokens of a tokenizer's file and of an encoder-decoder's pairs, and a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlm.data.tokenizer import Tokenizer

# control tokens before and after a text
Edges = tuple[tuple[int, ...], tuple[int, ...]]
# the entry of task_specific_params in which the prefix of sources stands, as T5's has "summarization"
_TASK = "text_to_text"


def edges(tokenizer: Tokenizer) -> Edges:
    """The control tokens that the tokenizer's file puts before and after a text.

    Raises:
        ValueError: it changes the text too.
    """
    plain = tokenizer.encode("a")
    framed = tokenizer.text_backend.encode("a", add_special_tokens=True).ids
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return tuple(framed[:start]), tuple(framed[start + len(plain) :])
    raise ValueError("the tokenizer changes a text to which it adds control tokens")


class PairEdges(NamedTuple):
    """The control tokens around sources and around targets; those of targets do not include the decoder's start."""

    source: Edges
    target: Edges


def pair_edges(tokenizer: Tokenizer) -> PairEdges:
    """How sources and targets are framed: as the tokenizer's file does it (T5 and Marian: eos; BART: bos and eos).

    A file that adds nothing, as ours, frames both with an eos token. A token that the decoder starts with anyway is not
    written again, and a target always ends in eos, by which the decoder stops.

    Raises:
        ValueError: there is no eos token, or the file adds a token of a language, which is another one on each side.
    """
    before, after = edges(tokenizer)
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
