"""Processes prompts: fills caches with their keys and values, and those of sources.

Letters: B rows, T prompt length, M source length, C length of a chunk.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxlm.config import EncoderDecoderConfig
from jaxlm.generation.cache import Caches
from jaxlm.models import decoder
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.ops import masks

# Lengths to which prompts and sources are padded; longer prompts are processed in chunks of the last one.
BUCKETS = (16, 64, 256)


@functools.partial(jax.jit, static_argnames=("model", "length", "is_prefix"))
def begin(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    prompts: Int[Array, "B C"],
    lengths: Int[Array, " B"],
    source: Int[Array, "B M"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
    *,
    text_lengths: Int[Array, " B"] | None = None,
    length: int,
    is_prefix: bool = False,
) -> Caches:
    """Caches for `length` tokens with those of the prompts, or of their first chunk, in them.

    Args:
        model: the language model.
        params: its parameters.
        prompts: ids, padded on the right; padding is read, but nothing that follows attends to it.
        lengths: true lengths of the prompts.
        source: input of an encoder-decoder, padded on the right.
        source_lengths: true lengths of the sources.
        text_lengths: of the whole texts, see `Decoder`.
        length: entries of the caches, at least C.
        is_prefix: tokens of the prompt attend to all of its tokens (a prefix language model); C is the whole prompt.
    """
    inputs: dict[str, Any] = {} if text_lengths is None else {"text_lengths": text_lengths}
    config = model.config
    if isinstance(config, EncoderDecoderConfig):
        assert source is not None and source_lengths is not None
        segments = source_segments(source_lengths, source.shape[1])
        memory = model.apply({"params": params}, source, segment_ids=segments, method="encode")
        inputs |= {"memory": memory, "memory_segment_ids": segments}
        config = config.decoder
    if is_prefix:
        inputs["prefix"] = jnp.arange(length) < lengths[:, None]
    caches = decoder.empty_cache(config, prompts.shape[0], length, model.compute)
    return _read(model, params, prompts, 0, caches, **inputs)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="caches")
def proceed(
    model: CausalLM,
    params: Any,
    prompts: Int[Array, "B C"],
    start: Int[Array, ""],
    caches: Caches,
    text_lengths: Int[Array, " B"] | None = None,
) -> Caches:
    """The caches with the next chunk of long prompts added, which begins at `start`."""
    inputs = {} if text_lengths is None else {"text_lengths": text_lengths}
    return _read(model, params, prompts, start, caches, **inputs)


def source_segments(lengths: Int[Array, " B"], size: int) -> Int[Array, "B M"]:
    """Segment ids of sources of these lengths, padded to `size`."""
    return masks.segments_from_padding(jnp.arange(size) < lengths[:, None])


def _read(model, params, prompts, start, caches, **inputs) -> Caches:
    positions = jnp.broadcast_to(start + jnp.arange(prompts.shape[1]), prompts.shape)
    # XLA drops the logits, which nobody asks for
    result: Any = model.apply(
        {"params": params},
        prompts,
        positions=positions,
        cache=caches,
        method="with_cache",
        **inputs,
    )
    return result[1]
