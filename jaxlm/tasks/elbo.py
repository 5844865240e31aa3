"""The objective of every variational autoencoder: reconstruction plus weighted divergence from the prior.

It does not depend on what is reconstructed. Letters: N examples (texts, or rows of numbers), Z width of the latent.
Everything is in nats per example.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import TaskConfig
from jaxlm.ops import latent
from jaxlm.tasks.task import Context, Loss

# step of the Lagrange multiplier per nat and step of training
MULTIPLIER_RATE = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElboConfig(TaskConfig):
    """Settings of the objective; those of a task inherit them."""

    # weight of the divergence from the prior; 0: an autoencoder
    kl_weight: float = 1.0
    # constant; linear: from 0 over the first kl_steps steps (Bowman et al. 2016, section 3.1); cyclical: from 0 over
    # the first half of every kl_steps steps (Fu et al. 2019, 1903.10145)
    kl_schedule: Literal["constant", "linear", "cyclical"] = "linear"
    kl_steps: int = 1000
    # find the weight by a Lagrange multiplier so that the divergence is at least this many nats per example (Pelsmaeker
    # and Aziz 2020, 1904.08194, section 3). The weight stays between 0 and 1: a rate that the model does not reach
    # without any penalty is not reached. 0: do not
    min_rate: float = 0.0
    # nats of divergence without a gradient: of each dim of the latent or of their sum; see `ops.latent.free_bits`
    free_bits: float = 0.0
    free_bits_per: latent.FreeBits = "dimension"

    def check_used(self, name: str, is_used: bool, reason: str) -> None:
        """Raises ValueError if a field has no effect, for this reason, and is not its default."""
        default = next(f.default for f in dataclasses.fields(self) if f.name == name)
        if not is_used and getattr(self, name) != default:
            raise ValueError(
                f"task.{name} has no effect with {reason}: leave it unset, or at its default {default}"
            )

    def __post_init__(self):
        super().__post_init__()
        for name in ("kl_weight", "min_rate", "free_bits"):
            if getattr(self, name) < 0:
                raise ValueError(f"task.{name}={getattr(self, name)} must not be negative")
        # a cycle of one step would stay at weight 0
        least = 2 if self.kl_schedule == "cyclical" else 1
        if self.kl_steps < least:
            raise ValueError(
                f"task.kl_steps={self.kl_steps} must be at least {least} with task.kl_schedule={self.kl_schedule}"
            )
        reason = (self.min_rate and f"task.min_rate={self.min_rate}") or "task.kl_weight=0"
        if self.kl_schedule == "cyclical":
            self.check_used("kl_schedule", bool(self.kl_weight) and not self.min_rate, reason)
        by_schedule = self.kl_schedule != "constant" and not self.min_rate
        reason = f"task.min_rate={self.min_rate}" if self.min_rate else "task.kl_schedule=constant"
        self.check_used("kl_steps", by_schedule, reason)
        if self.free_bits and not self.kl_weight:
            raise ValueError(
                f"task.free_bits={self.free_bits} has no effect with task.kl_weight=0, an autoencoder: set it to 0"
            )
        self.check_used("free_bits_per", bool(self.free_bits), "task.free_bits=0")
        if self.min_rate and (self.free_bits or self.kl_weight != 1):
            raise ValueError(
                f"task.min_rate={self.min_rate} finds the weight of the divergence by itself: leave kl_weight and "
                "free_bits unset"
            )


def sampling_key(key: jax.Array, context: Context, data: jax.Array) -> jax.Array:
    """The key of the samples of a batch; an evaluation, whose key is always the same, has one for each content."""
    if context.train:
        return key
    bits = jax.lax.bitcast_convert_type(data, jnp.uint32)
    return jax.random.fold_in(key, bits.sum(dtype=jnp.uint32))


class Sums(NamedTuple):
    """Sums over the examples of a batch, from one sample of each latent."""

    # negative log-likelihood
    reconstruction: Float[Array, ""]
    # divergence from the prior
    kl: Float[Array, ""]
    # the same with `free_bits`
    penalty: Float[Array, ""]
    # number of them
    examples: Float[Array, ""]
    # of the posterior means and their squares, by dim, as the terms of `latent.moments`
    mean: Float[Array, "2 Z"]
    square: Float[Array, "3 Z"]


def sums(
    settings: ElboConfig,
    reconstruction: Float[Array, ""],
    kl: Float[Array, "N Z"],
    means: Float[Array, "N Z"],
    counts: Float[Array, " N"],
) -> Sums:
    """The sums of a batch.

    Args:
        settings: of the task.
        reconstruction: negative log-likelihood, a sum over the examples that count.
        kl: divergence by example and dim; [N, 1] where only their sum is known.
        means: of the posteriors.
        counts: 1 for each example that counts, 0 for the others.
    """
    total = (kl.sum(-1) * counts).sum()
    penalty = total
    if settings.free_bits:
        penalty = latent.free_bits(kl, counts, settings.free_bits, settings.free_bits_per)
    mean, square = latent.moments(means, counts)
    return Sums(
        reconstruction=reconstruction,
        kl=total,
        penalty=penalty,
        examples=counts.sum(),
        mean=mean,
        square=square,
    )


def init_state(settings: ElboConfig) -> dict[str, jax.Array]:
    """The Lagrange multiplier of `min_rate`."""
    return {"multiplier": jnp.zeros(())} if settings.min_rate else {}


def scheduled_weight(
    settings: ElboConfig, step: jax.Array, start: int | jax.Array = 0
) -> jax.Array | float:
    """The weight of the divergence at a step of training, by a schedule that begins at `start`."""
    if settings.kl_schedule == "constant":
        return settings.kl_weight
    done = (step - start).astype(jnp.float32) / settings.kl_steps
    if settings.kl_schedule == "cyclical":
        done = 2 * (done % 1.0)
    return settings.kl_weight * jnp.clip(done, 0.0, 1.0)


def schedule_note(settings: ElboConfig, steps: int) -> str | None:
    """A line about a schedule whose `steps` are too few for the weight to become `kl_weight`."""
    rise = settings.kl_steps / 2 if settings.kl_schedule == "cyclical" else settings.kl_steps
    fixed = settings.kl_schedule == "constant" or settings.min_rate or not settings.kl_weight
    if fixed or steps >= rise:
        return None
    last = settings.kl_weight * (steps - 1) / rise
    return (
        f"the weight of the divergence rises to {last:.3g} only, not to task.kl_weight="
        f"{settings.kl_weight:g}, because task.kl_steps={settings.kl_steps:,} does not fit {steps:,} steps: lower it"
    )


def loss(settings: ElboConfig, s: Sums, context: Context, weight: jax.Array | float) -> Loss:
    """Reconstruction plus weighted divergence.

    In evaluation, the divergence has its final weight and is not changed by `free_bits`, so that losses are comparable
    between steps; with weight 1 they are -ELBO.

    Args:
        settings: of the task.
        s: sums of the batch.
        context: its state has the multiplier of `init_state`, if there is one.
        weight: of the divergence at this step of training, not used in evaluation and with `min_rate`.
    """
    state = context.state
    penalty = s.penalty
    if not context.train:
        weight, penalty = settings.kl_weight, s.kl
    elif settings.min_rate:
        # the multiplier rises while the divergence is below the rate, which lowers the weight of the divergence
        weight = 1.0 - state["multiplier"]
        short = settings.min_rate - jax.lax.stop_gradient(s.kl / jnp.maximum(s.examples, 1))
        multiplier = jnp.clip(state["multiplier"] + MULTIPLIER_RATE * short, 0.0, 1.0)
        state = {**state, "multiplier": multiplier}
    means = {
        "reconstruction": (s.reconstruction, s.examples),
        "kl": (s.kl, s.examples),
        "neg_elbo": (s.reconstruction + s.kl, s.examples),
    }
    if context.train:
        means["kl_weight"] = (weight * s.examples, s.examples)
    return Loss(
        s.reconstruction + weight * penalty,
        s.examples,
        means,
        {"mean": s.mean, "square": s.square, "examples": s.examples},
        state,
    )


def active_units(sums: dict[str, Any]) -> float:
    """Number of dims whose posterior mean varies over the examples, from `Loss.sums`."""
    count = max(float(sums["examples"]), 1.0)
    mean, square = (np.asarray(sums[n], np.float64).sum(0) / count for n in ("mean", "square"))
    variance = square - np.square(mean)
    return float(latent.active_units(variance))
