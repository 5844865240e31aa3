"""Chat: a decoder learns to answer as the assistant of the conversations does (instruction tuning)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig, TaskConfig
from jaxlm.data import chat_template, conversations
from jaxlm.data.bad_rows import BadRow
from jaxlm.data.conversations import ConversationRows
from jaxlm.data.loader import Dataset
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation import decode, weights
from jaxlm.models import lora
from jaxlm.tasks.pretraining.decoder import DecoderTask
from jaxlm.tasks.task import Outputs, Purpose

_NO_ANSWER = BadRow("no message of the assistant", "nothing to learn from it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatConfig(TaskConfig):
    """Write the assistant's messages of a conversation; its other messages are read, but do not count in the loss.

    The conversations are rendered by the model's own chat template or, if it has none, by ChatML, whose control tokens
    are then added to its tokenizer.
    """

    # column of the conversations: lists of {"role": ..., "content": ...}
    messages_column: str = "messages"
    # column of the instructions, for rows as Alpaca has them instead of conversations: the user's message is the
    # instruction and, after an empty line, the input if there is one; the assistant's is the output
    instruction_column: str | None = None
    # columns of the inputs, which may be empty, and of the outputs of such rows
    input_column: str = "input"
    output_column: str = "output"
    # system prompt of the conversations that have none
    system: str | None = None
    # the messages of the assistant that count in the loss; last: for templates that change a message when others follow
    answers: Literal["all", "last"] = "all"
    # maximum number of tokens of an answer in samples and predictions
    max_new_tokens: int = 256

    def __post_init__(self):
        super().__post_init__()
        if self.max_new_tokens < 1:
            raise ValueError(f"task.max_new_tokens={self.max_new_tokens} must be at least 1")


class Chat(DecoderTask):
    """See `ChatConfig`."""

    Config = ChatConfig
    name = "chat"
    predicts_validation = False
    adjustable = {"max_new_tokens": ("predict",), "system": ("predict", "validation")}

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """The conversations, or the parts of Alpaca's rows; to predict, without what the assistant has to answer."""
        s: Any = config.task
        if s.instruction_column is None:
            # another role, because conversations to be answered need no answer
            role = "messages" if purpose != "predict" else "prompt"
            return {role: Column(s.messages_column, "messages", option="task.messages_column")}
        columns = {
            "instruction": Column(s.instruction_column, "text", option="task.instruction_column"),
            "input": Column(s.input_column, "text", required=False, option="task.input_column"),
        }
        if purpose != "predict":
            columns["output"] = Column(s.output_column, "text", option="task.output_column")
        return columns

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The examples as conversations; one without an answer is an error, or skipped and counted."""
        columns = records.columns
        needs_answer = "messages" in columns or "output" in columns
        chats = (
            columns.get("messages")
            or columns.get("prompt")
            or conversations.of_instructions(columns)
        )
        if settings.system is not None:
            chats = conversations.with_system(chats, settings.system)
        records = Records({"messages": chats}, records.ids, records.counts)
        wanted = [not needs_answer or any(m["role"] == "assistant" for m in c) for c in chats]
        refused = {i: _NO_ANSWER for i, is_wanted in enumerate(wanted) if not is_wanted}
        return records.without(refused, config.data.on_bad_row)

    @classmethod
    def prepare_tokenizer(cls, config: RunConfig, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer with a chat template, and with the token that ends an answer among those that end a text."""
        if tokenizer.chat_template is None:
            tokenizer = dataclasses.replace(
                tokenizer.with_tokens(chat_template.DEFAULT_TOKENS),
                chat_template=chat_template.DEFAULT,
            )
        end = conversations.end_of_turn(tokenizer.chat_template, tokenizer)
        if end is None or tokenizer.vocab[end] in tokenizer.end_ids:
            return tokenizer
        vocab = {i: name for name, i in tokenizer.vocab.items()}
        ends = (*(vocab[i] for i in tokenizer.end_ids), end)
        return dataclasses.replace(tokenizer, ends=ends)

    def rows(self, data: Records, purpose: Purpose) -> Dataset:
        """Whole conversations packed into rows; to predict, one in each row, up to where an answer is to be written."""
        if purpose == "predict":
            return self._prompts(data)
        encoded, refused = [], {}
        for i, messages in enumerate(data.columns["messages"]):
            try:
                encoded.append(self._encode(messages))
            except ValueError as e:
                refused[i] = BadRow("a conversation that the chat template cannot render", str(e))
        kept = data.without(refused, self.config.data.on_bad_row)
        if not len(kept):
            raise ValueError(f"no conversation can be rendered; {data.counts}")
        # a sample answers a validation message, if there are any
        if purpose == "validation" or not hasattr(self, "_asked"):
            self._asked = kept.columns["messages"][0]
        apart = purpose == "train" and self.config.privacy.is_on
        return ConversationRows.of(encoded, self.config.data.seq_len, self._pad_id, apart=apart)

    def _encode(self, messages: Any) -> tuple[list[int], np.ndarray]:
        template, only_last = self.tokenizer.chat_template, self.settings.answers == "last"
        return conversations.encode(template, self.tokenizer, messages, only_last=only_last)

    def _prompt(self, messages: Any) -> list[int]:
        ids = conversations.prompt(self.tokenizer.chat_template, self.tokenizer, messages)
        room = self.model.config.max_cached_len - self.settings.max_new_tokens
        if len(ids) > room:
            raise ValueError(
                f"a conversation of {len(ids):,} tokens leaves no room for an answer of {self.settings.max_new_tokens} "
                f"in the {self.model.config.max_cached_len:,} of the model; shorten it, or lower task.max_new_tokens"
            )
        return ids

    def _prompts(self, data: Records) -> ArrayRows:
        prompts, refused = {}, {}
        for i, messages in enumerate(data.columns["messages"]):
            try:
                prompts[i] = self._prompt(messages)
            except ValueError as e:
                refused[i] = BadRow("a conversation that cannot be answered", str(e))
        data.without(refused, self.config.data.on_bad_row)
        tokens, lengths = decode.pad_prompts([*prompts.values()], self._pad_id)
        return ArrayRows({"tokens": tokens, "lengths": lengths, "record": np.array([*prompts])})

    @property
    def _pad_id(self) -> int:
        return self.tokenizer.pad_id or self.tokenizer.eos_id or 0

    def predict(self, params: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
        """The most probable token after each, "tokens" [B, max_new_tokens]."""
        tokens = decode.generate(
            self.model,
            # as fast as without adapters, and on CPUs many times as fast as slices of stacked blocks
            weights.by_layer(lora.merge(params)),
            batch["tokens"],
            batch["lengths"],
            key,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=0.0,
            # of several, the last is the one that the template writes
            eos_id=next(reversed(self.tokenizer.end_ids), None),
            vocab_size=self.tokenizer.vocab_size,
        )
        return {"tokens": tokens}

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """{"answer": the text up to the token that ends it}."""
        ids = outputs[0]["tokens"].tolist()
        end = next((i for i, x in enumerate(ids) if x in self.tokenizer.end_ids), len(ids))
        return {"answer": self.tokenizer.decode(ids[:end])}

    def sample(self, params: Any, key: jax.Array) -> str | None:
        """The answer to the first conversation of the validation data, after what it answers."""
        try:
            ids = self._prompt(self._asked)
        except ValueError as e:
            return f"(no sample: {e})"
        tokens, lengths = decode.pad_prompts([ids], self._pad_id)
        batch = {"tokens": jnp.asarray(tokens), "lengths": jnp.asarray(lengths)}
        out = jax.tree.map(np.asarray, self._answer(params, batch, key))
        answer = self.read([{"tokens": out["tokens"][0]}], {})["answer"]
        return f"{self.tokenizer.decode(ids, skip_special=False)}{answer}"

    @functools.cached_property
    def _answer(self):
        return jax.jit(self.predict)
