"""Prefix language modelling: continue a text whose beginning may be read in both directions."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlm.config import DecoderConfig, ModelConfig, PrefixLMConfig, RunConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.rows import TextRows, next_tokens, piece_keys, spread
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import causal_lm
from jaxlm.tasks.task import Corpora, Task

load = task.load_documents
added_tokens = task.no_tokens


@dataclasses.dataclass(frozen=True)
class PrefixRows:
    """Rows of whole texts, each with a prefix that is not to be predicted."""

    text: TextRows
    seed: int

    def __len__(self) -> int:
        return len(self.text)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.text.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions, targets [n, T]; prefix [n, T] bool; weights [n, T], 0 within the prefix."""
        members = self.text.members(indices)
        texts = self.text.take(members)
        rows = next_tokens(self.text.lay(texts, members))
        # what stands before the text belongs to its prefix
        lead = int(self.text.prefix_id is not None)
        given = corruption.prefix_lengths(texts.lengths, piece_keys(self.seed, epochs, members))
        prefix = rows["positions"] < spread(given + lead, members, rows["segment_ids"])
        weights = rows["weights"].copy()
        weights[:, :-1] *= ~prefix[:, 1:]
        return {**rows, "weights": weights, "prefix": prefix}


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    assert isinstance(config.task, PrefixLMConfig)
    backbone = task.need_model(model, DecoderConfig, "prefix_lm")
    lm = heads.CausalLM(backbone, config.compute)
    rows_of = lambda docs: decoder_rows(config, tokenizer, docs, "prefix_lm")
    make = lambda docs, training: PrefixRows(rows_of(docs), config.seed)
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


def decoder_rows(
    config: RunConfig, tokenizer: Tokenizer, docs: TokenDocuments, name: str, extra: int = 0
) -> TextRows:
    """Rows of whole texts for a decoder; `extra` is room in each text for tokens that a corruption adds."""
    task.need_roles(tokenizer, name, "eos")
    assert tokenizer.eos_id is not None
    return TextRows.of(
        docs,
        config.data.seq_len,
        pad_id=tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id,
        prefix_id=task.bos_before(tokenizer),
        suffix_id=tokenizer.eos_id,
        extra=extra,
    )
