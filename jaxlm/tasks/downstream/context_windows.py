"""Rows of a question and a window of its context, made when they are read: a text may belong to many questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.data import frames
from jaxlm.data.bad_rows import BadRow
from jaxlm.data.loader import Batch, times
from jaxlm.data.records import Records
from jaxlm.data.tokenizer import Encoded, Tokenizer


def around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The control tokens before a question, between it and the context, and at the end.

    They are those of the tokenizer's frame or file (RoBERTa: two tokens between the texts), else [CLS] and [SEP]. The
    first token is that of [CLS] in any case: it stands for "no answer".
    """
    if tokenizer.frame is None:
        own = frames.of(tokenizer).pair
        if all(own) and own[0] == (tokenizer.cls_id,):
            return own
    return frames.of_rows(tokenizer).pair


@dataclasses.dataclass(frozen=True)
class QuestionWindows:
    """A question and a window of its context in each row."""

    # by record
    questions: list[np.ndarray]
    # the different contexts, and which of them each record has
    contexts: list[Encoded]
    context_of: np.ndarray
    # of each row: record [n]; start [n], its first token of the context; targets [n, 2], positions of the first and the
    # last token of the answer, those of "no answer" where the window has none
    arrays: dict[str, np.ndarray]
    # control tokens before the question, between it and the context, and at the end
    around: tuple[tuple[int, ...], ...]
    seq_len: int
    pad_id: int
    # position of "no answer": the first token, or the last one for models that read from left to right
    no_answer_is_last: bool
    remark: str = ""

    def __len__(self) -> int:
        return len(self.arrays["record"])

    def owners(self) -> np.ndarray:
        """The record that each row is of [rows]."""
        return self.arrays["record"]

    def describe(self, examples: int) -> str:
        """One line: rows and questions, and how often `examples` read each row."""
        questions = len(np.unique(self.arrays["record"]))
        size = f"{len(self):,} rows of {self.seq_len} tokens from {questions:,} questions"
        return "; ".join(x for x in (size, times(examples, len(self)), self.remark) if x)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, token_types, segment_ids [n, T]; characters [n, T, 2]: the characters of the context that a token
        stands for, empty for other tokens; no_answer [n]: the position that stands for it; targets [n, 2] if known."""
        shape = (len(indices), self.seq_len)
        tokens = np.full(shape, self.pad_id, np.int32)
        token_types, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        characters = np.zeros((*shape, 2), np.int32)
        no_answer = np.zeros(len(indices), np.int32)
        for i, index in enumerate(indices):
            record, start = self.arrays["record"][index], self.arrays["start"][index]
            question = self.questions[record]
            context = self.contexts[self.context_of[record]]
            room = self.seq_len - sum(map(len, self.around)) - len(question)
            ids = context.ids[start : start + room]
            before, between, after = self.around
            head = [*before, *question, *between]
            row = [*head, *ids, *after]
            tokens[i, : len(row)] = row
            token_types[i, len(head) : len(row)] = 1
            segment_ids[i, : len(row)] = 1
            characters[i, len(head) : len(head) + len(ids)] = context.spans[start : start + room]
            no_answer[i] = len(row) - 1 if self.no_answer_is_last else 0
        batch = {
            "tokens": tokens,
            "token_types": token_types,
            "segment_ids": segment_ids,
            "characters": characters,
            "no_answer": no_answer,
        }
        if "targets" in self.arrays:
            targets = self.arrays["targets"][indices]
            batch["targets"] = np.where(targets < 0, no_answer[:, None], targets)
        return batch


def build(
    records: Records,
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    stride: int | None,
    on_bad_row: str,
    is_training: bool,
    with_targets: bool,
    no_answer_is_last: bool,
) -> QuestionWindows:
    """The rows of records with `question`, `context` and, `with_targets`, `answers`.

    A question of which a quarter of the row is not left for the context is an error or, where bad rows are skipped, is
    left out in training and shortened elsewhere, so that it has a prediction.

    Raises:
        ValueError: such a question, or a stride that would leave out text between two windows.
    """
    control = around(tokenizer)
    taken = sum(map(len, control))
    least = max(1, seq_len // 4)
    longest = seq_len - taken - least
    if longest < 1:
        raise ValueError(f"data.seq_len={seq_len}: no room for a question and its context")
    questions = tokenizer.encode_batch(records.columns["question"])
    different = {text: i for i, text in enumerate(dict.fromkeys(records.columns["context"]))}
    contexts = tokenizer.encode_with_offsets(list(different))
    context_of = np.array([different[text] for text in records.columns["context"]], np.int64)
    parts: list[tuple[int, int]] = []
    targets: list[tuple[int, int]] = []
    too_long = unreachable = 0
    for i, question in enumerate(questions):
        if len(question) > longest:
            bad = BadRow(
                "question too long",
                f"{len(question)} tokens, at most {longest} fit beside a context in rows of data.seq_len={seq_len}",
            )
            if on_bad_row == "error":
                hint = "raise data.seq_len, or set data.on_bad_row=skip"
                raise ValueError(f"{records.ids[i]}: {bad}; {hint}")
            too_long += 1
            if is_training:
                continue
            questions[i] = question = question[:longest]
        room = seq_len - taken - len(question)
        step = max(1, room // 2) if stride is None else stride
        if step > room:
            raise ValueError(
                f"{records.ids[i]}: task.stride={stride} is more than the {room} tokens of context beside the "
                "question, so that text between two windows would be left out: lower it or leave it unset"
            )
        context = contexts[context_of[i]]
        found = answer_tokens(records.columns["answers"][i], context) if with_targets else []
        has_answer = with_targets and bool(records.columns["answers"][i]["text"])
        head = len(control[0]) + len(question) + len(control[1])
        for start in window_starts(len(context.ids), room, step):
            parts.append((i, start))
            inside = ((a, b) for a, b in found if start <= a and b < start + room)
            first, last = next(inside, (None, None))
            has_answer &= first is None
            targets.append(
                (-1, -1)
                if first is None or last is None
                else (first - start + head, last - start + head)
            )
        # still to be found
        unreachable += has_answer
    verb = "left out" if is_training else "shortened"
    remarks = [
        f"{too_long:,} questions are too long and {verb}" if too_long else "",
        f"{unreachable:,} answers are in no window as a whole" if unreachable else "",
    ]
    arrays: dict[str, np.ndarray] = {
        "record": np.array([record for record, _ in parts], np.int64),
        "start": np.array([start for _, start in parts], np.int64),
    }
    if with_targets:
        arrays["targets"] = np.array(targets, np.int32).reshape(-1, 2)
    return QuestionWindows(
        questions,
        contexts,
        context_of,
        arrays,
        control,
        seq_len,
        tokenizer.pad_id or 0,
        no_answer_is_last,
        "; ".join(x for x in remarks if x),
    )


def window_starts(num_tokens: int, room: int, stride: int) -> list[int]:
    """The first token of each window of `room` tokens, until one of them has the end of the text."""
    return [0, *range(stride, max(0, num_tokens - room) + stride, stride)]


def answer_tokens(answers: dict[str, Sequence[Any]], context: Encoded) -> list[tuple[int, int]]:
    """The first and the last token of each answer, those that have a part of it; answers without any are left out."""
    real = np.flatnonzero(context.spans[:, 1] > context.spans[:, 0])
    starts, ends = context.spans[real, 0], context.spans[real, 1]
    found = []
    for text, start in zip(answers["text"], answers["answer_start"]):
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(starts, start + len(text), side="left")) - 1
        if first <= last:
            found.append((int(real[first]), int(real[last])))
    return found
