"""Sampling from a decoder: one pass over the prompts, then one token at a time.

Letters: B batch, T prompt length, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxlm.models import decoder
from jaxlm.models.heads import CausalLM
from jaxlm.ops import sampling


def generate(
    model: CausalLM,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    key: Array,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    vocab_size: int | None = None,
) -> Int[Array, "B max_new_tokens"]:
    """Continues each prompt; pure, to be jitted with `model` and the keyword arguments closed over.

    Args:
        model: the language model.
        params: its parameters.
        prompts: ids, padded on the right.
        lengths: true length of each prompt, at least 1.
        key: random key.
        max_new_tokens: how many tokens to add.
        temperature: see `ops.sampling.sample`, as for `top_k` and `top_p`.
        top_k: see there.
        top_p: see there.
        eos_id: after this token a row is finished and repeats it.
        vocab_size: ids from here on are padding of the table and never drawn.
    """
    batch, length = prompts.shape
    cache: Any = decoder.empty_cache(model.config, batch, length + max_new_tokens, model.compute)
    places = jnp.broadcast_to(jnp.arange(length), prompts.shape)

    def run(tokens: Array, places: Array, cache: Any) -> Any:
        inputs = {"positions": places, "cache": cache, "method": "with_cache"}
        return model.apply({"params": params}, tokens, **inputs)

    logits, cache = run(prompts, places, cache)
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def choose(key, logits, done):
        if vocab_size is not None:
            logits = jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)
        token = sampling.sample(key, logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return token if eos_id is None else jnp.where(done, eos_id, token)

    def step(carry, key):
        cache, logits, place, done = carry
        token = choose(key, logits, done)
        done = done if eos_id is None else done | (token == eos_id)
        # what stands in the cache behind a short prompt is overwritten before anything can see it
        logits, cache = run(token[:, None], place[:, None], cache)
        return (cache, logits[:, 0], place + 1, done), token

    start = (cache, last, lengths, jnp.zeros(batch, bool))
    keys = jax.random.split(key, max_new_tokens)
    return jax.lax.scan(step, start, keys)[1].T


def pad_prompts(prompts: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array [B, T] padded on the right, and their lengths [B]."""
    lengths = np.array([len(p) for p in prompts], np.int32)
    padded = np.full((len(prompts), int(lengths.max())), pad_id, np.int32)
    for row, prompt in zip(padded, prompts):
        row[: len(prompt)] = prompt
    return padded, lengths
