"""Fill in the middle: causal language modeling of texts whose middle has been moved to the end."""

from __future__ import annotations

import dataclasses
import functools

from jaxlm.config import RunConfig, TaskConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.rows import CorruptedRows, Keys, TextRows, next_tokens
from jaxlm.tasks.pretraining.decoder import DecoderTask, text_rows
from jaxlm.tasks.task import Purpose

# as named by StarCoder 2 and Qwen2.5-Coder
TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillInMiddleConfig(TaskConfig):
    """Causal language modeling with the middle of some texts moved to the end (Bavarian et al. 2022, 2207.14255)."""

    # fraction of the texts that are changed
    fraction: float = 0.5
    # of those, the fraction with the suffix before the prefix (SPM)
    spm_fraction: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("fraction", "spm_fraction")


class FillInMiddle(DecoderTask):
    """See `FillInMiddleConfig`."""

    Config = FillInMiddleConfig
    name = "fill_in_middle"
    roles = ("eos",)

    @classmethod
    def added_tokens(cls, config: RunConfig) -> list[str]:
        """Control tokens that precede the three parts."""
        return list(TOKENS)

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Whole texts, a fraction of them with the middle at the end."""
        packed = text_rows(data, self.tokenizer, self.config.data.seq_len, len(TOKENS))
        token_ids = tuple(int(i) for i in self.tokenizer.ids_of(TOKENS))
        move = functools.partial(move_middle, settings=self.settings, token_ids=token_ids)
        return CorruptedRows(packed, move, self.config.seed)


def move_middle(
    packed: TextRows,
    members: Members,
    keys: Keys,
    *,
    settings: FillInMiddleConfig,
    token_ids: tuple[int, ...],
) -> Batch:
    """tokens, segment_ids, positions, targets, weights [n, T]; `token_ids` precede prefix, suffix and middle."""
    prefix_id, suffix_id, middle_id = token_ids
    changed = corruption.fill_in_middle(
        packed.take(members),
        keys=keys.pieces,
        fraction=settings.fraction,
        spm_fraction=settings.spm_fraction,
        prefix_id=prefix_id,
        suffix_id=suffix_id,
        middle_id=middle_id,
    )
    return next_tokens(packed.build_rows(changed, members))
