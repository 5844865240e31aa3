"""Denoising: an encoder-decoder writes a text from one with infilled spans and shuffled sentences (BART)."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.config import DenoisingConfig, ModelConfig, RunConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.ragged import framed
from jaxlm.data.rows import PairRows, piece_keys
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import span_corruption
from jaxlm.tasks.task import Corpora, Task

load = task.load_documents
added_tokens = task.no_tokens


@dataclasses.dataclass(frozen=True)
class DenoisingRows:
    """Rows of pieces with their corrupted form as input; an input never has more tokens than its target."""

    pairs: PairRows
    tokenizer: Tokenizer
    settings: DenoisingConfig
    seed: int

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return f"{self.pairs.describe(examples)} (inputs before infilling)"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """See `PairRows.lay`."""
        t = self.tokenizer
        assert t.mask_id is not None
        members = self.pairs.members(indices)
        texts = self.pairs.take(members)
        shown = corruption.denoise(
            texts,
            keys=piece_keys(self.seed, epochs, members),
            sentence_ends=t.sentence_ends(texts.values),
            mask_id=t.mask_id,
            **dataclasses.asdict(self.settings),
        )
        return self.pairs.lay(framed(shown, None, t.eos_id), framed(texts, None, t.eos_id), members)


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, DenoisingConfig)
    task.need_roles(tokenizer, "denoising", "mask")
    length = config.data.seq_len

    def rows(docs: TokenDocuments, training: bool) -> DenoisingRows:
        sizes = np.arange(1, length + 1)
        capacities = dict(input_capacity=length, target_capacity=length)
        pairs = span_corruption.pair_rows(docs, sizes, sizes, tokenizer, **capacities)
        return DenoisingRows(pairs, tokenizer, settings, config.seed)

    return span_corruption.text_to_text(
        config, model, tokenizer, corpora, "denoising", length, rows
    )
