"""Diagnostics of a text VAE: a bound of the likelihood by importance sampling, and how much depends on the latent.

Letters: B rows, M texts per row, Z width of the latent. Everything is in nats per text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.models import vae
from jaxlm.ops import latent
from jaxlm.ops.latent import Gaussian
from jaxlm.tasks.task import Context, Outputs, perplexity

# nats per text below which a latent is not used
COLLAPSED = 0.1


def analyse(task: Any, params: Any, batch: dict, context: Context) -> dict[str, jax.Array]:
    """Bounds of the likelihood of each text, its posterior, and a sample of it; for latents without a text, anything.

    Returns:
        exists [B, M]: whether there is a text; elbo, bound [B, M]: the mean and the importance-weighted bound over the
        samples; mean, log_variance, z [B, M, Z]; own, other [B, M]: log p(text | z) for a sample of its own posterior,
        and for that of the next text of the batch; other_exists [B, M]: whether there is a next text.
    """
    posterior, _ = task.posterior(params, batch, context.state)
    prior = vae.make_prior(task.model, params)

    def log_weight(key):
        z = latent.sample(posterior, key)
        likelihood = task.log_likelihood(params, batch, z)
        return likelihood + prior.log_density(z) - latent.log_density(z, posterior)

    keys = jax.random.split(context.key, task.settings.importance_samples)
    log_weights = jax.lax.map(log_weight, keys)
    z = latent.sample(posterior, keys[0])
    exists = task.exists(batch) * batch["valid"][:, None]
    other, other_exists = of_next(z, exists)
    return {
        "exists": exists,
        "elbo": log_weights.mean(0),
        "bound": latent.importance_bound(log_weights),
        "mean": posterior.mean,
        "log_variance": posterior.log_variance,
        "z": z,
        "own": task.log_likelihood(params, batch, z),
        "other": task.log_likelihood(params, batch, other),
        "other_exists": other_exists,
    }


def of_next(
    z: Float[Array, "B M Z"], exists: Float[Array, "B M"]
) -> tuple[Float[Array, "B M Z"], Float[Array, "B M"]]:
    """The latent of the next text of the batch, the last one's being the first's; and where a text has a next one.

    Texts are taken whatever row they are in, so that batches of one row and those filled up with empty rows have pairs.
    """
    flat = exists.ravel()
    # the texts before the latents without one
    order = jnp.argsort(flat < 1, stable=True)
    count = flat.sum().astype(jnp.int32)
    rank = jnp.argsort(order)
    following = order[(rank + 1) % jnp.maximum(count, 1)]
    other = z.reshape(len(flat), -1)[following].reshape(z.shape)
    return other, exists * (count > 1)


def diagnose(outputs: Outputs, metrics: Mapping[str, float]) -> dict[str, float]:
    """The importance-weighted bound, the mutual information, and the loss from the latent of another text, if any.

    The bound is that of all texts: -ELBO of all texts, less the gap between the two bounds of the analysed texts.
    """
    stacked = {name: np.stack([row[name] for row in outputs]) for name in outputs[0]}
    real, both = stacked["exists"] > 0, stacked["other_exists"] > 0
    posterior = Gaussian(*(jnp.asarray(stacked[n][real]) for n in ("mean", "log_variance")))
    bound = metrics["neg_elbo"] - float((stacked["bound"] - stacked["elbo"])[real].mean())
    information = latent.mutual_information(posterior, jnp.asarray(stacked["z"][real]))
    swapped = (stacked["own"] - stacked["other"])[both]
    words = metrics.get("words_per_text")
    return {
        "iw_nll": bound,
        "iw_perplexity": perplexity(bound / metrics["tokens_per_text"]),
        **({} if words is None else {"iw_word_perplexity": perplexity(bound / words)}),
        "mutual_information": float(information),
        # no batch has two texts: there is nothing to swap
        **({"swap_loss": float(swapped.mean())} if len(swapped) else {}),
        "analysed_texts": float(real.sum()),
    }


def distinct(texts: Sequence[np.ndarray], eos_id: int | None) -> float:
    """Fraction of different texts among greedy decodings of samples of the prior, each [T] and up to its end."""
    ends = [np.flatnonzero(text == eos_id) for text in texts]
    cut = {text[: end[0] if len(end) else None].tobytes() for text, end in zip(texts, ends)}
    return len(cut) / len(texts)


def verdict(
    metrics: Mapping[str, float], min_rate: float = 0.0, advice: str = "raise task.free_bits"
) -> str:
    """Whether the decoder uses the latent, in words, and whether the divergence is what `min_rate` asks for.

    `advice` is what to do if it does not.
    """
    loss, kl = metrics.get("swap_loss"), metrics["kl"]
    if loss is None:
        return (
            f"whether the latent is used cannot be told: no batch has two texts to compare; the divergence is {kl:.2f} "
            "nats per text: give more texts"
        )
    if not (math.isfinite(kl) and math.isfinite(loss)):
        return (
            f"the model is broken: the divergence is {kl:.2f} nats per text, and another text's latent costs "
            f"{loss:.2f}: lower the learning rate, or take an earlier checkpoint"
        )
    if kl < COLLAPSED or loss < COLLAPSED:
        return (
            f"the latent is not used: the divergence is {kl:.2f} nats per text, and another text's latent costs "
            f"{loss:.2f} nats: {advice}"
        )
    used = f"the latent is used: the divergence is {kl:.1f} nats per text, and another text's latent costs {loss:.1f}"
    if kl < min_rate:
        return (
            f"{used}, though task.min_rate={min_rate:g} is not reached: train longer, or lower it"
        )
    return used
