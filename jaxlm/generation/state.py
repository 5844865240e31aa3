"""What the programs of a step read and write: slots, their caches and their texts, of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.generation import cache
from jaxlm.generation.requests import Row
from jaxlm.generation.slots import Slots
from jaxlm.generation.step import Output, Texts, forward, insert, write
from jaxlm.models.heads import CausalLM, Seq2SeqLM


class Shape(NamedTuple):
    """What the compiled programs of a step depend on."""

    slots: int
    # entries of the caches for tokens, and for tokens of the source
    length: int
    memory: int

    def holds(self, other: Shape) -> bool:
        """Whether there is room for all that the other one has room for."""
        return all(own >= needed for own, needed in zip(self, other))


class State:
    """Slots with their caches and texts."""

    def __init__(
        self,
        shape: Shape,
        *,
        config: DecoderConfig,
        compute: ComputeConfig,
        vocab_size: int,
        max_len: int,
        block: int,
        place: Callable[[Any], Any],
    ):
        """All slots are empty.

        Args:
            shape: of the slots and caches.
            config: of the decoder.
            compute: of the model.
            vocab_size: ids from this one on are never written.
            max_len: largest number of tokens of a text.
            block: tokens of a block of the caches, see `cache`.
            place: binds arrays to the device.
        """
        self.shape, self.slots = shape, Slots(shape.slots, vocab_size)
        self._vocab_size, self._max_len, self._block = vocab_size, max_len, block
        caches = cache.empty(
            config,
            rows=shape.slots,
            length=shape.length,
            memory=shape.memory,
            block=block,
            compute=compute,
        )
        zeros = np.zeros(shape.slots, np.int32)
        history = np.zeros((shape.slots, max_len), np.int32)
        # copies, because each is an array of its own whose memory is reused
        texts = Texts(jnp.array(zeros), jnp.array(zeros), jnp.array(history), jnp.array(zeros))
        self.caches: cache.Caches
        self.caches, self.texts = place((caches, texts))

    def insert(self, row: Row, source: cache.Caches | None, index: int) -> None:
        """Brings a row into a free slot: its tokens but the newest from row `index` of some caches, and the newest.

        Without `source`, for a row of one token, there is nothing to bring.
        """
        row.slot = self.slots.take(row.request)
        if source is not None:
            self.caches = cache.copy_row(
                source,
                index,
                self.caches,
                row.slot,
                tokens=row.processed,
                memory_tokens=row.source_length,
                block=self._block,
            )
        padded = np.zeros(self._max_len, np.int32)
        padded[: len(row.tokens)] = row.tokens
        self.texts = insert(
            self.texts,
            np.int32(row.slot),
            padded,
            np.int32(len(row.tokens)),
            np.int32(row.source_length),
        )

    def step(self, model: CausalLM | Seq2SeqLM, params: Any, rows: Sequence[Row]) -> Output:
        """Writes a token of each of these rows; the caches and texts have it then."""
        control = self.slots.control(
            [
                (
                    row.slot,
                    row.asked,
                    row.forced(),
                    row.matcher.bits() if row.matcher else None,
                )
                for row in rows
                if row.slot is not None
            ]
        )
        logits, self.caches = forward(
            model, params, self.caches, self.texts, vocab_size=self._vocab_size
        )
        self.texts, output = write(logits, self.texts, self.slots.settings(), control)
        for x in output if self.slots.has_log_probs else output[:1]:
            x.copy_to_host_async()
        return output
