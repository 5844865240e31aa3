"""Causal language modeling: predict each token of a document from those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.config import TaskConfig
from jaxlm.config.values import check_at_least
from jaxlm.data import counter, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch, times
from jaxlm.data.packing import Members
from jaxlm.data.rows import CorruptedRows, Keys, TextRows, next_tokens
from jaxlm.models import heads
from jaxlm.tasks.pretraining.decoder import DecoderTask, bos_before, next_token_loss
from jaxlm.tasks.task import Context, Loss, Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalLMConfig(TaskConfig):
    """Predict each token from those before it, in windows over concatenated documents."""

    # start each epoch at another offset, so that windows cut the text at other positions
    shift_windows: bool = True
    # weight of the squared log-partition, which keeps logits from drifting (PaLM, 2204.02311, section 5)
    z_loss: float = 0.0
    # fraction of the target distributed evenly over the vocabulary (Szegedy et al. 2015, 1512.00567)
    label_smoothing: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("label_smoothing")
        check_at_least(self, "task.", 0, "z_loss")


@dataclasses.dataclass(frozen=True)
class Windows:
    """Rows cut from concatenated documents; each epoch starts at another offset if `seed` is given."""

    docs: TokenDocuments
    seq_len: int
    seed: int | None
    prefix_id: int | None
    suffix_id: int | None

    def __len__(self) -> int:
        added = int(self.prefix_id is not None) + int(self.suffix_id is not None)
        return packing.num_windows(self.docs, self.seq_len, added)

    def describe(self, examples: int) -> str:
        """One line: how many windows, how long, and how often `examples` read each."""
        return f"{len(self):,} windows of {self.seq_len} tokens; {times(examples, len(self))}"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """See `data.packing.windows`."""
        offset: np.ndarray | int = 0
        if self.seed is not None and len(self) > 1:
            offset = (counter.bits(self.seed, epochs) % np.uint64(self.seq_len)).astype(np.int64)
        ends = dict(prefix_id=self.prefix_id, suffix_id=self.suffix_id)
        return packing.windows(self.docs, indices, self.seq_len, offset, **ends)


class CausalLM(DecoderTask):
    """See `CausalLMConfig`."""

    Config = CausalLMConfig
    name = "causal_lm"

    @classmethod
    def of_model(cls, model: Any, about: Mapping[str, Any]) -> CausalLMConfig | None:
        """The default settings, for a decoder."""
        return CausalLMConfig() if isinstance(model, heads.CausalLM) else None

    def rows(self, data: TokenDocuments, purpose: Purpose) -> Windows | CorruptedRows:
        """Windows over the documents; in private training a piece of one document in each row."""
        if data.apart:
            packed = TextRows.of(
                data,
                self.config.data.seq_len,
                # any id: segment_ids mark what is padding
                pad_id=self.tokenizer.eos_id or 0,
                prefix_id=bos_before(self.tokenizer),
                suffix_id=self.tokenizer.eos_id,
            )
            return CorruptedRows(packed, uncorrupted, self.config.seed)
        shifted = purpose == "train" and self.settings.shift_windows
        return Windows(
            data,
            self.config.data.seq_len,
            self.config.seed if shifted else None,
            bos_before(self.tokenizer),
            self.tokenizer.eos_id,
        )

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the next tokens, in training with the z-loss and label smoothing of the settings."""
        s = self.settings
        options: dict[str, Any] = {}
        if context.train:
            options = dict(
                z_loss=s.z_loss, label_smoothing=s.label_smoothing, smoothed_ids=self.known_ids
            )
        return next_token_loss(self.model, params, batch, context, **options)


def uncorrupted(packed: TextRows, members: Members, keys: Keys) -> Batch:
    """tokens, segment_ids, positions, targets and weights [n, T]."""
    return next_tokens(packed.build_rows(packed.take(members), members))
