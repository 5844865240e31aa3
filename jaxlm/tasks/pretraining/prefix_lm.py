"""Prefix language modeling: continue a text whose prefix has bidirectional attention."""

from __future__ import annotations

import dataclasses

from jaxlm.config import TaskConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.rows import CorruptedRows, Keys, TextRows, next_tokens, spread
from jaxlm.models import heads
from jaxlm.tasks.pretraining.decoder import DecoderTask, text_rows
from jaxlm.tasks.task import Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixLMConfig(TaskConfig):
    """Continue a prefix of random length that has bidirectional attention (T5, 1910.10683, section 3.2.3)."""


class PrefixLM(DecoderTask):
    """See `PrefixLMConfig`."""

    Config = PrefixLMConfig
    name = "prefix_lm"
    reads_prompts_both_ways = True
    roles = ("eos",)

    def export_model(self) -> heads.CausalLM:
        """Refused: elsewhere the prefix would be read in one direction only."""
        raise ValueError(f"transformers has no class for what task {self.name} trains")

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Whole texts, each with a prefix of random length."""
        packed = text_rows(data, self.tokenizer, self.config.data.seq_len)
        return CorruptedRows(packed, with_prefix, self.config.seed)


def with_prefix(packed: TextRows, members: Members, keys: Keys) -> Batch:
    """tokens, segment_ids, positions, targets [n, T]; prefix [n, T] bool; weights [n, T], 0 within the prefix."""
    texts = packed.take(members)
    rows = next_tokens(packed.build_rows(texts, members))
    # the control token before a text belongs to its prefix
    lead = int(packed.prefix_id is not None)
    lengths = corruption.prefix_lengths(texts.lengths, keys.pieces)
    prefix = rows["positions"] < spread(lengths + lead, members, rows["segment_ids"])
    weights = rows["weights"].copy()
    weights[:, :-1] *= ~prefix[:, 1:]
    return {**rows, "weights": weights, "prefix": prefix}
