"""Conversations as rows for a decoder: the tokens that a template makes of them, and which of them are answers.

A template does not say which part of its text is an answer. The answer to the first messages is what their rendering
gains when the assistant's message is added, so it is found by rendering more and more messages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.data import chat_template, packing
from jaxlm.data.chat_template import Conversation, Template
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch, times
from jaxlm.data.packing import Packing
from jaxlm.data.rows import next_tokens
from jaxlm.data.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]


def encode(
    template: Template | None, tokenizer: Tokenizer, messages: Messages, *, only_last: bool = False
) -> tuple[list[int], np.ndarray]:
    """The ids of a conversation [T], and whether each is a token of an answer, bool [T].

    An answer is a message of the assistant, up to and with the control token that ends it.

    Args:
        template: see `chat_template.render`.
        tokenizer: its tokenizer.
        messages: the conversation.
        only_last: only the last message of the assistant is an answer.

    Raises:
        ValueError: as `chat_template.render`; or the template changes a message when others follow, so that the
            answers cannot be told from the rest.
    """
    conversation = Conversation(template, tokenizer, messages)
    encoded = conversation.encode(add_generation_prompt=False)
    starts, ends = np.array(encoded.offsets, np.int64).reshape(-1, 2).T
    is_answer = np.zeros(len(starts), bool)
    for first, last in _spans(conversation, only_last):
        # as in transformers, a token of both the answer and what is before it counts
        is_answer |= (ends > first) & (starts < last)
    return encoded.ids, is_answer


def _spans(conversation: Conversation, only_last: bool) -> list[tuple[int, int]]:
    """Start and end of each answer in the rendering."""
    count = len(conversation.chat)
    whole = conversation.text(count, add_generation_prompt=False)
    answers = [i for i, m in enumerate(conversation.chat) if m["role"] == "assistant"]
    spans = []
    for i in answers[-1:] if only_last else answers:
        before = _before(conversation, i)
        after = conversation.text(i + 1, add_generation_prompt=False)
        control = conversation.control_tokens(after)
        while control and not whole.startswith(after) and control[-1].end() == len(after):
            # some templates end every conversation with a token, as that of Phi 3
            after = after[: control.pop().start()]
        if not after.startswith(before):
            raise ValueError(
                f"the chat template begins the answer messages[{i}] otherwise than it asks for one (its "
                "add_generation_prompt), so what the model has to write cannot be found"
            )
        if not whole.startswith(after):
            raise ValueError(
                f"the chat template changes messages[{i}] when other messages follow, so the tokens of that answer "
                "cannot be found: set task.answers=last to train on the last answer of each conversation"
            )
        spans.append((len(before), len(before) + _end(conversation, after[len(before) :])))
    return spans


def _before(conversation: Conversation, count: int) -> str:
    """The text with which the first messages ask for an answer; many templates cannot render none of them."""
    try:
        return conversation.text(count, add_generation_prompt=True)
    except ValueError:
        if count:
            raise
        return ""


def _end(conversation: Conversation, answer: str) -> int:
    """The end of an answer without the white space that many templates write after its last control token."""
    control = conversation.control_tokens(answer)
    if control and not answer[control[-1].end() :].strip():
        return control[-1].end()
    return len(answer)


def end_of_turn(template: Template | None, tokenizer: Tokenizer) -> str | None:
    """The control token that ends the assistant's answers; None: the template has none."""
    ask, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    try:
        conversation = Conversation(template, tokenizer, [ask, answer, ask])
        (first, last), *_ = _spans(conversation, only_last=True)
    except ValueError:
        # a template that changes the answer when a message follows
        conversation = Conversation(template, tokenizer, [ask, answer])
        (first, last), *_ = _spans(conversation, only_last=True)
    text = conversation.text(len(conversation.chat), add_generation_prompt=False)
    control = conversation.control_tokens(text[first:last])
    return control[-1][0] if control and first + control[-1].end() == last else None


def prompt(template: Template | None, tokenizer: Tokenizer, messages: Messages) -> list[int]:
    """The ids of a conversation up to its last message that is not an answer, after which the model answers."""
    asked = [i for i, message in enumerate(messages) if message["role"] != "assistant"]
    if not asked:
        raise ValueError("the conversation has no message to answer: all are the assistant's")
    return chat_template.render(template, tokenizer, messages[: asked[-1] + 1])


def of_instructions(columns: Mapping[str, list[Any]]) -> list[list[dict[str, str]]]:
    """The conversations of rows with an instruction, perhaps an input, and perhaps an output."""
    chats = []
    outputs = columns.get("output") or [None] * len(columns["instruction"])
    for instruction, extra, output in zip(columns["instruction"], columns["input"], outputs):
        text = instruction if extra is None else f"{instruction}\n\n{extra}"
        chat = [{"role": "user", "content": text}]
        chats.append(chat if output is None else [*chat, {"role": "assistant", "content": output}])
    return chats


def with_system(chats: Sequence[Messages], prompt: str) -> list[Messages]:
    """The conversations, those without a system prompt with this one."""
    system = {"role": "system", "content": prompt}
    return [chat if chat[0]["role"] == "system" else [system, *chat] for chat in chats]


@dataclasses.dataclass(frozen=True)
class ConversationRows:
    """Conversations packed into rows, with weights on the tokens of answers; one that is too long is cut."""

    conversations: TokenDocuments
    # 1 for a token of an answer, in the order of the tokens of the conversations
    answers: TokenDocuments
    packing: Packing
    capacity: int
    pad_id: int
    # conversations that were cut, and those without a token of an answer before the cut, which are left out
    cut: int
    without_answer: int

    @classmethod
    def of(
        cls,
        encoded: Sequence[tuple[Sequence[int], np.ndarray]],
        capacity: int,
        pad_id: int,
        *,
        apart: bool = False,
    ) -> ConversationRows:
        """Packs conversations as `encode` gives them, or puts each `apart` in a row.

        Raises:
            ValueError: none of them has a token of an answer among its first `capacity`.
        """
        kept = [(ids[:capacity], marks[:capacity]) for ids, marks in encoded]
        # the first token of a row is no target
        kept = [(ids, marks) for ids, marks in kept if marks[1:].any()]
        if not kept:
            raise ValueError(
                f"data.seq_len={capacity}: no conversation has an answer within so few tokens; increase it"
            )
        ends = np.cumsum([len(ids) for ids, _ in kept])
        tokens = TokenDocuments(np.concatenate([np.array(ids, np.uint32) for ids, _ in kept]), ends)
        answers = TokenDocuments(
            np.concatenate([marks.astype(np.uint8) for _, marks in kept]), ends
        )
        sizes = np.arange(capacity + 1)
        return cls(
            tokens,
            answers,
            packing.one_a_row(tokens, sizes) if apart else packing.pack(tokens, sizes, capacity),
            capacity,
            pad_id,
            cut=sum(len(ids) > capacity for ids, _ in encoded),
            without_answer=len(encoded) - len(kept),
        )

    def __len__(self) -> int:
        return len(self.packing)

    def owners(self) -> np.ndarray | None:
        """The conversation that each row is of [rows]; None: rows may be of several."""
        return self.packing.owners()

    def describe(self, examples: int) -> str:
        """One line: number, length and fill of the rows, what was cut, and how often `examples` read each."""
        full = self.conversations.num_tokens / (len(self) * self.capacity)
        written = int(self.answers.gather(np.arange(self.answers.num_tokens)).sum())
        line = (
            f"{len(self):,} rows of {self.capacity} tokens, {full:.1%} full, with {len(self.conversations):,} "
            f"conversations, {written:,} tokens of answers; {times(examples, len(self))}"
        )
        if self.cut:
            line += f"; {self.cut:,} conversations are longer than a row and cut"
        if self.without_answer:
            line += f"; {self.without_answer:,} left out, whose answers are all behind the cut"
        return line

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions, targets and weights [n, capacity]; weights are 1 before tokens of answers."""
        members = packing.members(self.packing, indices)
        build = lambda docs, pad: packing.build_rows(
            packing.take(docs, members.pieces), members.rows, members.num_rows, self.capacity, pad
        )
        rows = next_tokens(build(self.conversations, self.pad_id))
        marks = build(self.answers, 0)["tokens"]
        follows = np.pad(marks[:, 1:], ((0, 0), (0, 1)))
        return {**rows, "weights": rows["weights"] * follows.astype(np.float32)}
