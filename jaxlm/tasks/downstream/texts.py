"""Columns, rows and model of the tasks that predict something of a whole text, or of a pair of texts."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import jax
import numpy as np

from jaxlm.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, RunConfig
from jaxlm.data import frames
from jaxlm.data.bad_rows import EMPTY_TEXT, BadRow
from jaxlm.data.frames import Frame
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.models.twice_read import Reading

# of at most so many digits as int() reads
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,1000}")
TextClassifier = heads.Classifier | heads.TwiceReadClassifier
# see `ClassificationConfig`; decoder: the decoder reads the text a second time (BART, T5)
Pooling = Literal["auto", "first", "last", "mean", "decoder"]
# by the kind of backbone
_POOLING: dict[type, Pooling] = {
    DecoderConfig: "last",
    EncoderConfig: "first",
    EncoderDecoderConfig: "mean",
}


def columns(config: RunConfig) -> dict[str, Column]:
    """The text and, if `data.pair_column` is set, the second text of a pair."""
    data = config.data
    found = {"text": Column(data.text_column, "text")}
    if data.pair_column is not None:
        found["pair"] = Column(data.pair_column, "text")
    return found


def classifier(task: Any, outputs: int) -> TextClassifier:
    """A classifier with so many outputs on the task's backbone, by the settings `pooling` and `dropout`."""
    pooling: Pooling = task.settings.pooling
    dropout, compute = task.settings.dropout, task.config.compute
    has_first = task.tokenizer.cls_id is not None
    if pooling == "auto":
        pooling = _POOLING[type(task.backbone)]
        pooling = pooling if has_first or pooling != "first" else "mean"
    if pooling == "decoder":
        if not isinstance(task.backbone, EncoderDecoderConfig):
            raise ValueError("task.pooling=decoder is for encoder-decoders: leave it out")
        after = frames.of_rows(task.tokenizer).after
        if not after:
            raise ValueError("task.pooling=decoder needs a tokenizer that ends texts with a token")
        reading = Reading(after[-1], task.tokenizer.start_id, task.tokenizer.pad_id or 0)
        return heads.TwiceReadClassifier(task.backbone, outputs, reading, dropout, compute)
    if pooling == "first" and not has_first:
        raise ValueError(
            f"task {task.name} reads the first token of a text, and this tokenizer has none to put there: set "
            "task.pooling=mean"
        )
    return heads.Classifier(task.backbone, outputs, pooling, dropout, compute)


def pooling_of(model: Any) -> Pooling | None:
    """The pooling of a classifier of texts; None for other models, and for mBART, whose decoder starts otherwise."""
    if isinstance(model, heads.TwiceReadClassifier):
        return None if model.reading.start is None else "decoder"
    return cast(Pooling, model.pooling) if isinstance(model, heads.Classifier) else None


def frame(task: Any) -> Frame:
    """The control tokens around the texts of the task's rows."""
    ours, own = frames.of_rows(task.tokenizer), frames.of(task.tokenizer)
    alike = (ours.before, ours.after) == (own.before, own.after)
    # pairs that the task does not have remain what the tokenizer's file makes of them
    return own if alike and task.config.data.pair_column is None else ours


def logits(task: Any, params: Any, batch: dict, key: jax.Array | None) -> jax.Array:
    """Outputs of the task's model for rows that have tokens and segment_ids and may have token_types."""
    names = ["tokens", "segment_ids"]
    # RoBERTa has a single type: there is no second one to give to the second text
    if isinstance(task.backbone, EncoderConfig) and task.backbone.num_token_types > 1:
        names.append("token_types")
    inputs = {name: batch[name] for name in names}
    return task.model.apply({"params": params}, **inputs, key=key)


def rows(task: Any, data: Records, **targets: np.ndarray) -> ArrayRows:
    """One text or pair a row, [CLS] a [SEP] or [CLS] a [SEP] b [SEP], and its targets; see `text_arrays`."""
    first = data.token_ids("text", task.tokenizer)
    second = data.token_ids("pair", task.tokenizer) if "pair" in data.columns else None
    seq_len, frame = task.config.data.seq_len, frames.of_rows(task.tokenizer)
    arrays = text_arrays(first, second, task.tokenizer, seq_len)
    control = (frame.before, frame.after) if second is None else frame.pair
    room = seq_len - sum(map(len, control))
    pairs = itertools.zip_longest(first, second or [], fillvalue=())
    cut = sum(len(a) + len(b) > room for a, b in pairs)
    return ArrayRows({**arrays, **targets}, cut_remark(cut, len(first), seq_len))


def cut_remark(cut: int, count: int, length: int) -> str:
    """What to tell of texts that were longer than their row."""
    return (
        f"{cut / count:.1%} of the texts were longer and are cut to {length} tokens" if cut else ""
    )


def text_arrays(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray] | None,
    tokenizer: Tokenizer,
    seq_len: int,
) -> dict[str, np.ndarray]:
    """tokens, token_types and segment_ids [n, seq_len] int32 of texts or pairs; the longer of a pair is cut first."""
    shape = (len(first), seq_len)
    tokens = np.full(shape, tokenizer.pad_id or 0, np.int32)
    token_types, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    frame = frames.of_rows(tokenizer)
    before, between, after = frame.pair
    for i, (a, b) in enumerate(itertools.zip_longest(first, second or [])):
        if b is None:
            room = seq_len - len(frame.before) - len(frame.after)
            row = [*frame.before, *a[:room], *frame.after]
            head = len(row)
        else:
            room = seq_len - len(before) - len(between) - len(after)
            keep_b = min(len(b), max(room - len(a), room // 2))
            row = [*before, *a[: room - keep_b], *between]
            head = len(row)
            row += [*b[:keep_b], *after]
        tokens[i, : len(row)] = row
        token_types[i, head : len(row)] = 1
        segment_ids[i, : len(row)] = 1
    return {"tokens": tokens, "token_types": token_types, "segment_ids": segment_ids}


def usable(records: Records, config: RunConfig, fault: Callable[[int], BadRow | None]) -> Records:
    """The records without a fault, by their index; others are errors with file and row, or skipped and counted."""
    bad = {i: found for i in range(len(records)) if (found := fault(i)) is not None}
    for i, found in bad.items():
        if found != EMPTY_TEXT and config.data.on_bad_row == "error":
            hint = "(set data.on_bad_row=skip to skip such rows)"
            raise ValueError(f"{records.ids[i]}: {found.reason} {found.detail} {hint}")
    return records.without(bad, "skip")


def hint(name: str, known: Sequence[str], what: str = "classes") -> str:
    """What to say about an unknown name: the near match, or the known ones."""
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", ..." if len(known) > 20 else ""
    return f"{what}: {', '.join(known[:20])}{more}"


def check_names(names: Sequence[str], field: str) -> None:
    """Raises ValueError if a name is there twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{field} has {name!r} twice")


def in_natural_order(names: set[str]) -> tuple[str, ...]:
    """Names sorted so that "10" comes after "9", and numbers before words; the same in every process."""

    def key(name: str) -> tuple:
        # the name too: "5" and "05" are the same number
        return (0, int(name), name) if _WHOLE_NUMBER.fullmatch(name) else (1, 0, name)

    return tuple(sorted(names, key=key))


def class_names(about: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The names of the classes in a config.json, in the order of the outputs; numbers if it has none."""
    names = {int(i): str(name) for i, name in (about.get("id2label") or {}).items()}
    return tuple(names.get(i, str(i)) for i in range(count))
