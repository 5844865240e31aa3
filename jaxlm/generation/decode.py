"""Sampling from a decoder or an encoder-decoder: one pass over the prompts, then one token at a time.

Letters: B batch, T prompt length, S source length, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import EncoderDecoderConfig, TransformerConfig
from jaxlm.models import decoder
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.nn.attention import Cache
from jaxlm.ops import masks, sampling


def generate(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    key: Array,
    *,
    max_new_tokens: int,
    source: Int[Array, "B S"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
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
        prompts: ids, padded on the right; for an encoder-decoder the start of the target, at least its start token.
        lengths: true length of each prompt, at least 1.
        key: random key.
        max_new_tokens: number of tokens to generate.
        source: input of an encoder-decoder, padded on the right.
        source_lengths: true length of each source.
        temperature: see `ops.sampling.sample`, as for `top_k` and `top_p`.
        top_k: see there.
        top_p: see there.
        eos_id: after this token a row is finished and repeats it.
        vocab_size: ids from this one on are padding of the table and never sampled.
    """
    logits, state = begin(model, params, prompts, lengths, max_new_tokens, source, source_lengths)

    def choose(key, logits, done):
        logits = without_padding(logits, vocab_size)
        token = sampling.sample(key, logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return token if eos_id is None else jnp.where(done, eos_id, token)

    def add(carry, key):
        logits, state, done = carry
        token = choose(key, logits, done)
        done = done if eos_id is None else done | (token == eos_id)
        return (*step(model, params, token, state), done), token

    start = (logits, state, jnp.zeros(prompts.shape[0], bool))
    keys = jax.random.split(key, max_new_tokens)
    return jax.lax.scan(add, start, keys)[1].T


def greedy(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    max_new_tokens: int,
    eos_id: int,
    source: Int[Array, "B S"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
    vocab_size: int | None = None,
) -> tuple[Int[Array, "B max_new_tokens"], Float[Array, " B"]]:
    """The most probable token at each step until all rows have ended, and the log-probability of each row's tokens.

    Pure, as `generate`, whose arguments these are; `eos_id` fills up the rows and counts once.
    """
    logits, state = begin(model, params, prompts, lengths, max_new_tokens, source, source_lengths)
    rows = prompts.shape[0]
    tokens = jnp.full((rows, max_new_tokens), eos_id, prompts.dtype)
    start = (jnp.int32(0), tokens, jnp.zeros(rows), jnp.zeros(rows, bool), logits, state)

    def unfinished(carry):
        return (carry[0] < max_new_tokens) & ~carry[3].all()

    def add(carry):
        index, tokens, sums, done, logits, state = carry
        log_probs = jax.nn.log_softmax(without_padding(logits, vocab_size))
        token = jnp.where(done, eos_id, log_probs.argmax(-1)).astype(tokens.dtype)
        sums = sums + jnp.where(done, 0.0, log_probs.max(-1))
        tokens = tokens.at[:, index].set(token)
        done = done | (token == eos_id)
        return (index + 1, tokens, sums, done, *step(model, params, token, state))

    _, tokens, sums, *_ = jax.lax.while_loop(unfinished, add, start)
    return tokens, sums


class State(NamedTuple):
    """State of the decoding of each row."""

    cache: tuple[Cache, ...]
    # index of the row's next token
    position: Int[Array, " B"]
    # which tokens of the source are real
    source_segments: Int[Array, "B S"] | None


def begin(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    max_new_tokens: int,
    source: Int[Array, "B S"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B V"], State]:
    """Processes sources and prompts; returns the logits of each row's next token, and the state after the prompt.

    Raises:
        ValueError: an encoder-decoder without a source, or more tokens than the model has positions for.
    """
    batch, length = prompts.shape
    apply: Any = functools.partial(model.apply, {"params": params})
    inputs: dict[str, Any] = {}
    config, segments = model.config, None
    if isinstance(config, EncoderDecoderConfig):
        if source is None or source_lengths is None:
            raise ValueError("an encoder-decoder needs source and source_lengths: its input")
        _check_positions("tokens of the source", config, source, source_lengths)
        config = config.decoder
        segments = masks.segments_from_padding(
            jnp.arange(source.shape[1]) < source_lengths[:, None]
        )
        memory = apply(source, segment_ids=segments, method="encode")
        inputs = {"memory": memory, "memory_segment_ids": segments}
    _check_positions("tokens", config, prompts, lengths, max_new_tokens)
    most = config.max_cached_len
    if most < config.max_len and length + max_new_tokens > most:
        raise ValueError(
            f"prompts of {length} tokens and max_new_tokens={max_new_tokens} pass the {most} up to which the rotary "
            "frequencies stay the same"
        )
    inputs["cache"] = decoder.empty_cache(config, batch, length + max_new_tokens, model.compute)
    inputs["positions"] = jnp.broadcast_to(jnp.arange(length), prompts.shape)
    logits, cache = apply(prompts, method="with_cache", **inputs)
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return last, State(cache, lengths, segments)


def _check_positions(
    what: str, config: TransformerConfig, rows: Array, lengths: Array, more: int = 0
) -> None:
    """JAX would take the last row of a table of positions for all those beyond it."""
    # inside of jit the lengths are not known
    traced = isinstance(lengths, jax.core.Tracer)
    longest = rows.shape[1] if traced else int(np.asarray(lengths).max(initial=0))
    if config.positions == "learned" and longest + more > config.max_len:
        count = f"{longest} + {more} = {longest + more}" if more else f"{longest}"
        raise ValueError(f"{count} {what}, but model.max_len={config.max_len}")


def step(
    model: CausalLM | Seq2SeqLM, params: Any, tokens: Int[Array, " B"], state: State
) -> tuple[Float[Array, "B V"], State]:
    """Appends a token to each row; returns the logits of the next one, and the state after it."""
    # cache entries after the end of a short prompt are overwritten before any token attends to them
    inputs: dict[str, Any] = {"positions": state.position[:, None], "cache": state.cache}
    if state.source_segments is not None:
        inputs["memory_segment_ids"] = state.source_segments
    run: Any = functools.partial(model.apply, {"params": params}, method="with_cache")
    logits, cache = run(tokens[:, None], **inputs)
    return logits[:, 0], state._replace(cache=cache, position=state.position + 1)


def without_padding(logits: Float[Array, "B V"], vocab_size: int | None) -> Float[Array, "B V"]:
    """The logits with minus infinity for ids from `vocab_size` on."""
    if vocab_size is None:
        return logits
    return jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)


def pad_prompts(
    prompts: Sequence[Sequence[int]],
    pad_id: int,
    *,
    rows: int | None = None,
    length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array [B, T] padded on the right, and their lengths [B].

    Args:
        prompts: ids of each.
        pad_id: fills up the rows.
        rows: B; default: as many as prompts. Further rows have a prompt of one padding token.
        length: T; default: that of the longest prompt.
    """
    lengths = np.ones(len(prompts) if rows is None else rows, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    padded = np.full(
        (len(lengths), int(lengths.max(initial=1)) if length is None else length), pad_id, np.int32
    )
    for row, prompt in zip(padded, prompts):
        row[: len(prompt)] = prompt
    return padded, lengths
