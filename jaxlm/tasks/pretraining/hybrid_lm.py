"""Masked and causal language modelling by one decoder, row by row (GPT-BERT)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxlm.config import DecoderConfig, HybridLMConfig, ModelConfig, RunConfig
from jaxlm.data import corruption, counter
from jaxlm.data.loader import Batch
from jaxlm.data.rows import TextRows, next_tokens
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import causal_lm, prefix_lm
from jaxlm.tasks.task import Corpora, Sums, Task

load = task.load_documents
added_tokens = task.no_tokens

_KIND = 0x4B


@dataclasses.dataclass(frozen=True)
class HybridRows:
    """Rows of whole texts, a share of them masked; in either kind a token is predicted at the place before it."""

    text: TextRows
    tokenizer: Tokenizer
    settings: HybridLMConfig
    seed: int

    def __len__(self) -> int:
        return len(self.text)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.text.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """tokens, segment_ids, positions, targets, weights [n, T]; prefix [n, T] bool: the texts of masked rows."""
        t, s = self.tokenizer, self.settings
        assert t.mask_id is not None
        members = self.text.members(indices)
        rows = next_tokens(self.text.lay(self.text.take(members), members))
        keys = counter.bits(self.seed, epochs, indices)
        masked = counter.uniform(counter.bits(keys, _KIND)) < s.masked_share
        ordinary = (rows["segment_ids"] > 0) & ~np.isin(rows["tokens"], sorted(t.special_ids))
        inputs, _, hidden = corruption.mask_tokens(
            rows["tokens"],
            # the first token has no place before it
            maskable=ordinary & (rows["positions"] > 0),
            keys=keys,
            vocab_size=t.vocab_size,
            special_ids=t.special_ids,
            mask_id=t.mask_id,
            rate=s.rate,
            mask_share=s.mask_share,
            random_share=s.random_share,
        )
        follows = np.zeros_like(hidden)
        follows[:, :-1] = hidden[:, 1:]
        masked = masked[:, None]
        return {
            **rows,
            "tokens": np.where(masked, inputs, rows["tokens"]),
            "weights": np.where(masked, rows["weights"] * follows, rows["weights"]),
            "prefix": masked & (rows["segment_ids"] > 0),
        }


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, HybridLMConfig)
    backbone = task.need_model(model, DecoderConfig, "hybrid")
    task.need_roles(tokenizer, "hybrid", "mask", "eos")
    lm = heads.CausalLM(backbone, config.compute)
    rows_of = lambda docs: prefix_lm.decoder_rows(config, tokenizer, docs, "hybrid")
    make = lambda docs, training: HybridRows(rows_of(docs), tokenizer, settings, config.seed)

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        total, sums = causal_lm.decoder_loss(lm, params, batch, key)
        if key is None:
            # how well it does either, which one number does not tell
            masked = batch["prefix"].any(axis=1)
            part = {**batch, "weights": batch["weights"] * masked[:, None]}
            part_sums = causal_lm.decoder_loss(lm, params, part, key)[1]
            sums |= {f"masked_{name}": part_sums[name] for name in ("loss", "weight")}
        return total, sums

    train, validation = task.datasets(config, corpora, tokenizer, make)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=loss,
        summarize=summarize,
        output_share=1.0,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: causal_lm.preview(row, tokenizer),
        sample=causal_lm.sampler(lm, tokenizer, config.data.seq_len),
    )


def summarize(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Those of a causal model, and in evaluation the losses of both kinds of rows, as far as they occur."""
    metrics = causal_lm.summarize(sums)
    if "masked_weight" in sums:
        loss, weight = sums["masked_loss"], sums["masked_weight"]
        rest = sums["weight"] - weight
        if weight > 0:
            metrics["masked_loss"] = float(loss / weight)
        if rest > 0:
            metrics["causal_loss"] = float((sums["loss"] - loss) / rest)
    return metrics
