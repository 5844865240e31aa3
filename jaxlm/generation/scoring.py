"""Log-probabilities of given texts.

Letters: B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxlm.generation.cache import lengths
from jaxlm.generation.decode import pad_prompts
from jaxlm.generation.prefill import source_segments
from jaxlm.generation.settings import MAX_TOP
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.models.language_models import logits, unembedding, unembedding_bias

# Texts in a batch, and positions whose logits are in memory at a time.
ROWS, CHUNK = 8, 64
# tokens of a batch, so that long texts are scored in fewer rows
_BATCH = 4096


class Scores(NamedTuple):
    """Log-probabilities of the tokens of a text, each after those before it; nothing for the first token."""

    log_probs: list[float]
    # whether each is the most probable token
    is_best: list[bool]
    # the most probable tokens at the place of each token, and their log-probabilities
    top: list[list[tuple[int, float]]]


def score(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    texts: Sequence[Sequence[int]],
    *,
    top: int = 0,
    vocab_size: int,
    sources: Sequence[Sequence[int]] | None = None,
) -> list[Scores]:
    """Scores of each text.

    Args:
        model: the language model.
        params: its parameters.
        texts: ids, at least one each; for an encoder-decoder the start token and the target.
        top: number of most probable tokens to return.
        vocab_size: ids from this one on are padding of the table.
        sources: inputs of an encoder-decoder.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    results: dict[int, Scores] = {}
    while order:
        length = lengths(16, len(texts[order[0]]))[-1]
        rows = min(ROWS, max(1, _BATCH // length))
        chosen, order = order[:rows], order[rows:]
        tokens, sizes = pad_prompts([texts[i] for i in chosen], 0, rows=rows, length=length)
        given = () if sources is None else _pad([sources[i] for i in chosen], rows)
        known = {"lengths": sizes} if _needs_lengths(model) else {}
        arrays = _score(model, params, tokens, *given, **known, vocab_size=vocab_size)
        log_probs, best, best_log_probs = (np.asarray(x) for x in arrays)
        for row, index in enumerate(chosen):
            count = len(texts[index]) - 1
            pairs = [
                list(zip(ids[:top].tolist(), values[:top].tolist()))
                for ids, values in zip(best[row, :count], best_log_probs[row, :count])
            ]
            results[index] = Scores(
                log_probs[row, :count].tolist(),
                # the same float in both places
                (log_probs[row, :count] == best_log_probs[row, :count, 0]).tolist(),
                pairs,
            )
    return [results[i] for i in range(len(texts))]


def _pad(texts: Sequence[Sequence[int]], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of few different shapes, and the lengths of the texts."""
    return pad_prompts(texts, 0, rows=rows, length=lengths(16, max(map(len, texts)))[-1])


def _needs_lengths(model: CausalLM | Seq2SeqLM) -> bool:
    """Whether padding behind a text matters: rotary frequencies may depend on the length of the row."""
    scaling = model.config.rope_scaling
    return scaling is not None and scaling.by_length


def follow(
    model: CausalLM,
    params: Any,
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    rows: int = ROWS,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each text: the log-probability of each target after its inputs, and whether it is the most probable token [T].

    Every token of the model's table counts in the softmax, as in training.

    Args:
        model: a decoder.
        params: its parameters.
        inputs: ids, T each, at most as many as the model reads.
        targets: the token that follows each of them.
        rows: texts in a batch.
    """
    order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i]))
    results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for first in range(0, len(order), rows):
        chosen = order[first : first + rows]
        length = min(lengths(16, len(inputs[chosen[0]]))[-1], model.config.max_len)
        (tokens, sizes), (following, _) = (
            pad_prompts([side[i] for i in chosen], 0, rows=rows, length=length)
            for side in (inputs, targets)
        )
        known = {"lengths": sizes} if _needs_lengths(model) else {}
        scores = _follow(model, params, tokens, following, **known)
        log_probs, best = (np.asarray(x) for x in scores)
        for row, index in enumerate(chosen):
            count = len(inputs[index])
            results[index] = log_probs[row, :count], best[row, :count]
    return [results[i] for i in range(len(inputs))]


def _segments(tokens: Int[Array, "B T"], lengths: Int[Array, " B"] | None) -> dict[str, Array]:
    """Segment ids of rows that are padded on the right, where the model needs them."""
    if lengths is None:
        return {}
    return {"segment_ids": source_segments(lengths, tokens.shape[1])}


@functools.partial(jax.jit, static_argnames="model")
def _follow(
    model: CausalLM,
    params: Any,
    tokens: Int[Array, "B T"],
    targets: Int[Array, "B T"],
    *,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Array, Array]:
    """Log-probabilities of the targets, and whether each is the most probable token [B, T]."""
    known: Any = _segments(tokens, lengths)
    hidden: Any = model.apply({"params": params}, tokens, **known, method="hidden")
    table, bias = unembedding(params), unembedding_bias(params)

    def at(part):
        x, ids = part
        y = logits(x[:, None], table, bias=bias, softcap=model.config.logit_softcap)[:, 0]
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(y), ids[..., None], -1)[..., 0]
        return log_probs, y.argmax(-1) == ids

    # position by position of few rows: never the logits of all of them at once
    log_probs, best = jax.lax.map(
        at, (jnp.moveaxis(hidden, 1, 0), targets.T), batch_size=min(CHUNK, tokens.shape[1])
    )
    return log_probs.T, best.T


@functools.partial(jax.jit, static_argnames=("model", "vocab_size"))
def _score(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    tokens: Int[Array, "B T"],
    source: Int[Array, "B S"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
    *,
    vocab_size: int,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Array, Array, Array]:
    """Of each token but the first: its log-probability, the most probable tokens and theirs [B, T - 1, 20]."""
    apply = functools.partial(model.apply, {"params": params}, method="hidden")
    if source is None:
        known: Any = _segments(tokens, lengths)
        hidden: Any = apply(tokens, **known)
    else:
        assert source_lengths is not None
        hidden = apply(source, tokens, segment_ids=source_segments(source_lengths, source.shape[1]))
    table, bias = unembedding(params)[:vocab_size], unembedding_bias(params)
    bias = None if bias is None else bias[:vocab_size]
    targets = jnp.roll(tokens, -1, axis=1)
    count = min(MAX_TOP, vocab_size)
    chunk = min(CHUNK, tokens.shape[1])

    def score_chunk(part):
        x, ids = part
        y = logits(x, table, bias=bias, softcap=model.config.logit_softcap)
        log_probs = jax.nn.log_softmax(y)
        best_log_probs, best = jax.lax.top_k(log_probs, count)
        return jnp.take_along_axis(log_probs, ids[..., None], -1)[..., 0], best, best_log_probs

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    def join(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :-1]

    results = jax.lax.map(score_chunk, (split(hidden), split(targets)))
    return tuple(join(x) for x in results)  # type: ignore[return-value]
