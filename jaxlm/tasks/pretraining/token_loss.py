"""The loss on tokens that all language-modeling objectives share, and its metrics."""

from __future__ import annotations

from typing import Any

import jax

from jaxlm.models import heads, vocabulary
from jaxlm.tasks import task
from jaxlm.tasks.task import Loss


def token_loss(
    hidden: jax.Array, params: Any, batch: dict, *, softcap: float | None = None, **options: Any
) -> Loss:
    """Cross entropy of `batch["targets"]` from the hidden states [B, T, D] at their positions.

    The mean "accuracy" is the fraction of tokens predicted correctly; `options` are those of
    `ops.losses.token_cross_entropy`.
    """
    weights = batch["weights"] * batch["valid"][:, None]
    sums = vocabulary.token_cross_entropy(
        hidden,
        heads.unembedding(params),
        batch["targets"],
        weights,
        bias=heads.unembedding_bias(params),
        softcap=softcap,
        **options,
    )
    weight = weights.sum()
    return Loss(sums.loss, weight, {"accuracy": (sums.correct, weight)})


def with_perplexity(means: dict[str, float]) -> dict[str, float]:
    """The means of a `token_loss` and the perplexity; the loss is in nats per token."""
    return {"loss": means["loss"], "perplexity": task.perplexity(means["loss"]), **means}
