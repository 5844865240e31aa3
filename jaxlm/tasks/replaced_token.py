"""Replaced-token detection: a generator refills masked tokens, the backbone finds what is not the text's (ELECTRA)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import EncoderConfig, MaskedLMConfig, ModelConfig, ReplacedTokenConfig, RunConfig
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads, pretraining
from jaxlm.nn.layers import split_key
from jaxlm.ops import losses, sampling
from jaxlm.sharding import batch_shards
from jaxlm.tasks import masked_lm, task
from jaxlm.tasks.task import Corpora, Sums, Task

load = task.load_documents
added_tokens = task.no_tokens


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, ReplacedTokenConfig)
    backbone = task.need_model(model, EncoderConfig, "replaced_token")
    layers = settings.generator_layers or max(1, backbone.num_layers // 2)
    lm = pretraining.ReplacedToken(backbone, layers, config.compute)
    # every chosen token becomes a mask: what stays unchanged is up to the generator
    masking = MaskedLMConfig(rate=settings.rate, mask_share=1.0, random_share=0.0)
    rows = lambda docs, training: masked_lm.MaskedRows(
        masked_lm.encoder_rows(config, tokenizer, docs, "replaced_token"),
        tokenizer,
        masking,
        config.seed,
    )
    # the sum over all tokens, as if over as many as are masked: what both means are divided by
    factor = settings.discriminator_weight * settings.rate

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        # in evaluation always the same draws
        draw_key = jax.random.key(0) if key is None else jax.random.fold_in(key, 0)
        generator_key, detector_key = split_key(key, 2)
        inputs = {name: batch[name] for name in ("segment_ids", "positions")}
        hidden: Any = lm.apply(
            {"params": params},
            batch["tokens"],
            batch["at"],
            **inputs,
            key=generator_key,
            method="generate",
        )
        lm_params = {"backbone": params["backbone"], "head": params["head"]["lm"]}
        generator, sums = masked_lm.restoring_loss(hidden, lm_params, batch)
        drawn = sampling.sample_positions(
            draw_key,
            hidden,
            heads.unembedding(lm_params),
            bias=params["head"]["lm"]["unembedding_bias"],
            vocab_size=tokenizer.vocab_size,
            shards=batch_shards(),
        )
        original, refilled = (filled(batch, x) for x in (batch["targets"], drawn))
        logits: Any = lm.apply(
            {"params": params}, refilled, **inputs, key=detector_key, method="detect"
        )
        # rows that fill up the last batch of an evaluation have no weights
        real = (batch["segment_ids"] > 0) & (batch["weights"] > 0).any(axis=1, keepdims=True)
        replaced = refilled != original
        found = losses.binary_cross_entropy(logits, replaced, real.astype(jnp.float32))
        total = generator + factor * found.loss
        return total, {
            "loss": total,
            "weight": sums["weight"],
            "generator_loss": generator,
            "generator_correct": sums["correct"],
            "detector_loss": found.loss,
            "detector_correct": found.correct,
            "replaced": (replaced & real).sum().astype(jnp.float32),
            "tokens": real.sum().astype(jnp.float32),
        }

    train, validation = task.datasets(config, corpora, tokenizer, rows)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=loss,
        summarize=summarize,
        output_share=settings.rate,
        generator=dataclasses.replace(backbone, num_layers=layers),
        metric="detector_loss",
        metric_is_lower=True,
        preview=lambda row: masked_lm.preview(row, tokenizer),
    )


def filled(batch: dict, values: jax.Array) -> jax.Array:
    """The rows [B, T] with `values` [B, P] at their masked places."""
    put = jax.vmap(
        lambda row, at, new, is_masked: row.at[at].set(jnp.where(is_masked, new, row[at]))
    )
    return put(batch["tokens"], batch["at"], values, batch["weights"] > 0)


def summarize(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """The weighted loss; of the generator loss and accuracy on masked tokens; of the detector on all tokens.

    `replaced` is the share of tokens that differ from the text: always saying no is right for the rest.
    """
    weight, tokens = sums["weight"], sums["tokens"]
    return {
        "loss": float(sums["loss"] / weight),
        "generator_loss": float(sums["generator_loss"] / weight),
        "generator_accuracy": float(sums["generator_correct"] / weight),
        "detector_loss": float(sums["detector_loss"] / tokens),
        "detector_accuracy": float(sums["detector_correct"] / tokens),
        "replaced": float(sums["replaced"] / tokens),
    }
