"""Denoising: an encoder-decoder restores a text with infilled spans and shuffled sentences (BART)."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from jaxlm.config import TaskConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.ragged import framed
from jaxlm.data.rows import CorruptedRows, Keys, PairRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.pretraining.text_to_text import EncoderDecoderTask
from jaxlm.tasks.task import Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingConfig(TaskConfig):
    """Restore a corrupted text (BART, Lewis et al. 2019, 1910.13461, section 2.2)."""

    # fraction of the tokens replaced by infilling: each span, of Poisson length, becomes one mask
    infill_fraction: float = 0.3
    # mean length of a span
    mean_span: float = 3.0
    # fraction of the texts whose sentences are shuffled
    permute_fraction: float = 1.0
    # fraction of the tokens that are deleted
    delete_fraction: float = 0.0
    # fraction of the texts that are rotated to begin at a random token
    rotate_fraction: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions(
            "infill_fraction", "permute_fraction", "delete_fraction", "rotate_fraction"
        )
        if self.mean_span <= 0:
            raise ValueError(f"task.mean_span={self.mean_span} must be positive")


class Denoising(EncoderDecoderTask):
    """See `DenoisingConfig`."""

    Config = DenoisingConfig
    name = "denoising"
    roles = ("mask", *EncoderDecoderTask.roles)

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Pieces as targets and their corruptions as inputs, which never have more tokens than the targets."""
        sizes = np.arange(1, self.config.data.seq_len + 1)
        packed = self.pair_rows(data, sizes, sizes)
        corrupt = functools.partial(denoise, tokenizer=self.tokenizer, settings=self.settings)
        return CorruptedRows(packed, corrupt, self.config.seed)


def denoise(
    packed: PairRows,
    members: Members,
    keys: Keys,
    *,
    tokenizer: Tokenizer,
    settings: DenoisingConfig,
) -> Batch:
    """See `PairRows.build_rows`."""
    texts = packed.take(members)
    assert tokenizer.mask_id is not None
    corrupted = corruption.denoise(
        texts,
        keys=keys.pieces,
        sentence_ends=tokenizer.sentence_ends(texts.values),
        mask_id=tokenizer.mask_id,
        infill_fraction=settings.infill_fraction,
        mean_span=settings.mean_span,
        permute_fraction=settings.permute_fraction,
        delete_fraction=settings.delete_fraction,
        rotate_fraction=settings.rotate_fraction,
    )
    eos = tokenizer.eos_id
    return packed.build_rows(framed(corrupted, None, eos), framed(texts, None, eos), members)
