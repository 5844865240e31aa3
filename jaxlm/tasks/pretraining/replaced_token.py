"""Replaced-token detection: a generator fills in masked tokens, the backbone detects the replaced ones (ELECTRA)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import TaskConfig
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.rows import CorruptedRows
from jaxlm.models import flops, heads, pretraining
from jaxlm.nn.layers import split_key
from jaxlm.ops import losses, sampling
from jaxlm.sharding import batch_shards
from jaxlm.tasks.pretraining.masking import EncoderTask, mask_rows
from jaxlm.tasks.pretraining.token_loss import token_loss
from jaxlm.tasks.task import Context, Loss, Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplacedTokenConfig(TaskConfig):
    """Detect tokens that a small masked language model has replaced (ELECTRA, Clark et al. 2020, 2003.10555).

    Both models are trained together; the discriminator is the backbone. They share the token embeddings, so the
    generator has the same width, but fewer layers (as in DeBERTaV3, He et al. 2021, 2111.09543).
    """

    # fraction of the tokens that are masked and replaced by samples of the generator
    mask_fraction: float = 0.15
    # blocks of the generator; default: half of the discriminator's
    generator_layers: int | None = None
    # weight of the discriminator's mean loss relative to the generator's
    discriminator_weight: float = 50.0

    def __post_init__(self):
        super().__post_init__()
        self.check_between_0_and_1("mask_fraction")
        if self.generator_layers is not None and self.generator_layers < 1:
            raise ValueError(f"task.generator_layers={self.generator_layers} must be at least 1")
        if self.discriminator_weight <= 0:
            raise ValueError(
                f"task.discriminator_weight={self.discriminator_weight} must be positive"
            )


class ReplacedToken(EncoderTask):
    """See `ReplacedTokenConfig`."""

    Config = ReplacedTokenConfig
    name = "replaced_token"
    metric = "detector_loss"

    def make_model(self) -> pretraining.ReplacedToken:
        """The backbone with a detector, and a generator beside it."""
        return pretraining.ReplacedToken(self.backbone, self._layers, self.config.compute)

    @property
    def _layers(self) -> int:
        return self.settings.generator_layers or max(1, self.backbone.num_layers // 2)

    def export_model(self) -> heads.Headless:
        """The backbone only."""
        return heads.Headless(self.backbone)

    def rows(self, data: TokenDocuments, purpose: Purpose) -> CorruptedRows:
        """Masked rows; every chosen token becomes a mask, because the generator may sample the original anyway."""
        options = dict(
            mask_fraction=self.settings.mask_fraction,
            mask_token_fraction=1.0,
            random_token_fraction=0.0,
        )
        corrupt = functools.partial(mask_rows, tokenizer=self.tokenizer, options=options)
        return CorruptedRows(self.text_rows(data), corrupt, self.config.seed)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """The generator's loss, and the detector's loss on the generator's samples.

        The metric `replaced` is the fraction of tokens that differ from the text: 1 - `replaced` is the accuracy of a
        detector that always says no.
        """
        apply = lambda *inputs, **options: self.model.apply({"params": params}, *inputs, **options)
        draw_key = jax.random.fold_in(context.key, 0) if context.train else context.key
        generator_key, detector_key = split_key(context.dropout_key, 2)
        inputs = {name: batch[name] for name in ("segment_ids", "positions")}
        hidden: Any = apply(
            batch["tokens"], batch["at"], **inputs, key=generator_key, method="generate"
        )
        lm_params = {"backbone": params["backbone"], "head": params["head"]["lm"]}
        generator = token_loss(hidden, lm_params, batch)
        drawn = sampling.sample_positions(
            draw_key,
            hidden,
            heads.unembedding(lm_params),
            bias=params["head"]["lm"]["unembedding_bias"],
            vocab_size=self.tokenizer.vocab_size,
            shards=batch_shards(),
        )
        original, refilled = (fill(batch, x) for x in (batch["targets"], drawn))
        logits: Any = apply(refilled, **inputs, key=detector_key, method="detect")
        real = (batch["segment_ids"] > 0) & (batch["valid"] > 0)[:, None]
        replaced = refilled != original
        detector = losses.binary_cross_entropy(logits, replaced, real.astype(jnp.float32))
        tokens = real.sum().astype(jnp.float32)
        # the detector's sum over all tokens is scaled to the number of masked tokens, so that both share one weight
        factor = self.settings.discriminator_weight * self.settings.mask_fraction
        means = {
            "generator_loss": (generator.total, generator.weight),
            "generator_accuracy": generator.means["accuracy"],
            "detector_loss": (detector.loss, tokens),
            "detector_accuracy": (detector.correct, tokens),
            "replaced": ((replaced & real).sum().astype(jnp.float32), tokens),
        }
        return Loss(generator.total + factor * detector.loss, generator.weight, means)

    def cost(self, seq_len: int) -> float:
        """FLOPs of the backbone and of the generator."""
        generator = dataclasses.replace(self.backbone, num_layers=self._layers)
        return super().cost(seq_len) + flops.flops_per_token(
            generator, seq_len, output_fraction=0.0
        )


def fill(batch: dict, values: jax.Array) -> jax.Array:
    """The rows [B, T] with `values` [B, P] at their masked positions."""
    put = jax.vmap(
        lambda row, at, new, is_masked: row.at[at].set(jnp.where(is_masked, new, row[at]))
    )
    return put(batch["tokens"], batch["at"], values, batch["weights"] > 0)
