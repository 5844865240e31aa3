"""Fill in the middle: causal language modelling of texts whose middle has been moved behind their end."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.config import DecoderConfig, FillInMiddleConfig, ModelConfig, RunConfig
from jaxlm.data import corruption
from jaxlm.data.loader import Batch
from jaxlm.data.rows import TextRows, next_tokens, piece_keys
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import causal_lm, prefix_lm
from jaxlm.tasks.task import Corpora, Task

load = task.load_documents

# the names of StarCoder 2 and Qwen's coders
TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def added_tokens(config: RunConfig) -> list[str]:
    """Control tokens that stand before the three parts."""
    return list(TOKENS)


@dataclasses.dataclass(frozen=True)
class MiddleRows:
    """Rows of whole texts, a share of them with the middle at the end."""

    text: TextRows
    settings: FillInMiddleConfig
    # before prefix, suffix and middle
    marks: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.text)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.text.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions, targets, weights [n, T]."""
        members = self.text.members(indices)
        prefix_id, suffix_id, middle_id = self.marks
        changed = corruption.fill_in_middle(
            self.text.take(members),
            keys=piece_keys(self.seed, epochs, members),
            rate=self.settings.rate,
            spm_share=self.settings.spm_share,
            prefix_id=prefix_id,
            suffix_id=suffix_id,
            middle_id=middle_id,
        )
        return next_tokens(self.text.lay(changed, members))


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, FillInMiddleConfig)
    backbone = task.need_model(model, DecoderConfig, "fill_in_middle")
    lm = heads.CausalLM(backbone, config.compute)
    marks = tuple(int(i) for i in tokenizer.ids_of(TOKENS))
    rows_of = lambda docs: prefix_lm.decoder_rows(
        config, tokenizer, docs, "fill_in_middle", len(TOKENS)
    )
    make = lambda docs, training: MiddleRows(rows_of(docs), settings, marks, config.seed)
    train, validation = task.datasets(config, corpora, tokenizer, make)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=lambda params, batch, key: causal_lm.decoder_loss(lm, params, batch, key),
        summarize=causal_lm.summarize,
        output_share=1.0,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: causal_lm.preview(row, tokenizer),
        sample=causal_lm.sampler(lm, tokenizer, config.data.seq_len),
    )
