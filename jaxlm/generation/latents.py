"""Texts from the latents of a VAE.

Letters: N texts, Z latent width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, DecoderConfig
from jaxlm.generation import decode
from jaxlm.models.vae import TextVAE


@dataclasses.dataclass(frozen=True)
class Conditioned:
    """The decoder of a VAE with its latents, as the causal language model that `decode` works with."""

    model: TextVAE
    z: jax.Array

    @property
    def config(self) -> DecoderConfig:
        """Of the decoder."""
        return self.model.config.decoder

    @property
    def compute(self) -> ComputeConfig:
        """Of the model."""
        return self.model.compute

    def apply(self, variables: Any, tokens: jax.Array, *, method: str, **inputs: Any) -> Any:
        """As `flax.linen.Module.apply`."""
        return self.model.apply(variables, tokens, self.z[:, None], method=method, **inputs)


def generate(
    model: TextVAE,
    params: Any,
    z: Float[Array, "N Z"],
    key: Array,
    *,
    start_id: int,
    eos_id: int,
    vocab_size: int,
    length: int,
    temperature: float,
) -> Int[Array, "N length"]:
    """The tokens of each latent's text, which end with `eos_id`; temperature 0 is greedy."""
    prompts = jnp.full((len(z), 1), start_id, jnp.int32)
    given: Any = Conditioned(model, z)
    return decode.generate(
        given,
        params,
        prompts,
        jnp.ones(len(z), jnp.int32),
        key,
        max_new_tokens=length,
        temperature=temperature,
        eos_id=eos_id,
        vocab_size=vocab_size,
    )
