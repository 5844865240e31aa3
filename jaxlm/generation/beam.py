"""Beam search for the most probable continuations.

Letters: B batch, T prompt length, S source length, K beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.generation import cache, decode
from jaxlm.generation.requests import Request
from jaxlm.models.heads import CausalLM, Seq2SeqLM


class _Search(NamedTuple):
    """Unfinished and finished beams of each row, best first; the score of an empty slot is minus infinity."""

    # tokens added so far
    length: Int[Array, ""]
    # unfinished beams: sums of log probabilities, tokens, logits of the next token
    sums: Float[Array, "B K"]
    tokens: Int[Array, "B K max_new_tokens"]
    logits: Float[Array, "BK V"]
    state: decode.State
    # finished beams: sums divided by length ** length_penalty
    scores: Float[Array, "B K"]
    finished: Int[Array, "B K max_new_tokens"]


def beam_search(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    beams: int,
    max_new_tokens: int,
    eos_id: int,
    length_penalty: float = 1.0,
    source: Int[Array, "B S"] | None = None,
    source_lengths: Int[Array, " B"] | None = None,
    vocab_size: int | None = None,
) -> tuple[Int[Array, "B K max_new_tokens"], Float[Array, "B K"]]:
    """The best continuations of each prompt and their scores, best first; pure, to be jitted like `decode.generate`.

    A score is the log probability of the new tokens divided by their number (`eos_id` counts) to the power of
    `length_penalty`, as in fairseq and transformers: 0 gives the log probability, 1 its mean, larger values favour
    longer texts. At each length the K most likely unfinished continuations are kept; those that end, and are among the
    K most likely of all, compete with the K best finished ones. The search stops when no unfinished continuation can
    beat the finished ones (exact for a penalty >= 0).

    Args:
        model: the language model.
        params: its parameters.
        prompts: as in `decode.generate`.
        lengths: true length of each prompt, at least 1.
        beams: number of continuations that are kept.
        max_new_tokens: maximum length of a continuation.
        eos_id: the token that ends a continuation, and fills it up.
        length_penalty: the power of the length.
        source: input of an encoder-decoder.
        source_lengths: true length of each source.
        vocab_size: ids from this one on are padding of the table and never chosen.
    """
    batch = prompts.shape[0]
    logits, state = decode.begin(
        model, params, prompts, lengths, max_new_tokens, source, source_lengths
    )
    logits, state = jnp.repeat(logits, beams, 0), _repeat(state, beams)
    none = jnp.full((batch, beams), -jnp.inf)
    nothing = jnp.full((batch, beams, max_new_tokens), eos_id, prompts.dtype)
    # all beams of a row start equal, so only the first one counts
    sums = none.at[:, 0].set(0.0)
    search = _Search(jnp.zeros((), int), sums, nothing, logits, state, none, nothing)

    def unfinished(s: _Search) -> Bool[Array, ""]:
        # sums only decrease: an upper bound is the current sum at the most favourable length
        best_length = max_new_tokens if length_penalty > 0 else s.length + 1
        possible = s.sums[:, 0] / best_length**length_penalty
        return (s.length < max_new_tokens) & (possible > s.scores[:, -1]).any()

    def extend(s: _Search) -> _Search:
        log_probs = jax.nn.log_softmax(decode.without_padding(s.logits, vocab_size))
        vocab = log_probs.shape[-1]
        sums = (s.sums[:, :, None] + log_probs.reshape(batch, beams, vocab)).reshape(batch, -1)
        # at most K of the best 2K end here, so at least K remain
        sums, choice = jax.lax.top_k(sums, min(2 * beams, sums.shape[1]))
        parent, token = choice // vocab, (choice % vocab).astype(prompts.dtype)
        tokens = jnp.take_along_axis(s.tokens, parent[..., None], 1).at[..., s.length].set(token)
        ends = token == eos_id
        # an end counts only among the best K, as in transformers
        is_complete = ends & (jnp.arange(token.shape[1]) < beams)
        length = (s.length + 1).astype(jnp.float32)

        scores = jnp.where(is_complete, sums / length**length_penalty, -jnp.inf)
        scores, finished = _best(
            beams,
            jnp.concatenate([s.scores, scores], 1),
            jnp.concatenate([s.finished, tokens], 1),
        )
        sums, tokens, parent = _best(beams, jnp.where(ends, -jnp.inf, sums), tokens, parent)
        rows = (jnp.arange(batch)[:, None] * beams + parent).reshape(-1)
        logits, state = decode.step(
            model, params, tokens[..., s.length].reshape(-1), _select(s.state, rows)
        )
        return _Search(s.length + 1, sums, tokens, logits, state, scores, finished)

    s = jax.lax.while_loop(unfinished, extend, search)
    # beams still unfinished at the maximum length compete with the finished ones
    cut = jnp.where(s.length == max_new_tokens, s.sums / max_new_tokens**length_penalty, -jnp.inf)
    scores, tokens = _best(
        beams, jnp.concatenate([s.scores, cut], 1), jnp.concatenate([s.finished, s.tokens], 1)
    )
    return tokens, scores


def best(
    *arguments: Any, beams: int, eos_id: int, length_penalty: float = 1.0, **options: Any
) -> tuple[Int[Array, "B max_new_tokens"], Float[Array, " B"]]:
    """The best continuation that `beam_search` finds with these arguments, and its score; with one beam that of
    `decode.greedy`."""
    options["eos_id"] = eos_id
    if beams > 1:
        found, scores = beam_search(
            *arguments, beams=beams, length_penalty=length_penalty, **options
        )
        return found[:, 0], scores[:, 0]
    tokens, sums = decode.greedy(*arguments, **options)
    length = jnp.minimum((tokens != eos_id).sum(-1) + 1, tokens.shape[1])
    return tokens, sums / length**length_penalty


_compiled = jax.jit(
    beam_search,
    static_argnames=("model", "beams", "max_new_tokens", "eos_id", "length_penalty", "vocab_size"),
)


def search_requests(
    model: CausalLM | Seq2SeqLM,
    params: Any,
    requests: Sequence[Request],
    *,
    beams: int,
    max_new_tokens: int,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """`beam_search` of prompts, or of the sources of an encoder-decoder, padded to few shapes; of settings none count.

    Raises:
        ValueError: a number is out of range, or a prompt with the new tokens is too long for the model.
    """
    for name, value in {"beams": beams, "max_new_tokens": max_new_tokens}.items():
        if value < 1:
            raise ValueError(f"{name}={value} is out of range: at least 1")
    prompts, lengths = _pad([request.prompt for request in requests])
    longest = int(lengths.max()) + max_new_tokens
    decoder = getattr(model.config, "decoder", model.config)
    if longest > (most := decoder.max_cached_len):
        raise ValueError(
            f"a prompt and max_new_tokens={max_new_tokens} are {longest:,} tokens; the model reads {most:,}"
        )
    given = {}
    if requests[0].source is not None:
        source, source_lengths = _pad([request.source or () for request in requests])
        given = {"source": source, "source_lengths": source_lengths}
    tokens, scores = _compiled(
        model,
        params,
        prompts,
        lengths,
        beams=beams,
        max_new_tokens=max_new_tokens,
        **given,
        **options,
    )
    return np.asarray(tokens)[: len(requests)], np.asarray(scores)[: len(requests)]


def _pad(texts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose number and length are powers of two, and the lengths of the texts."""
    rows, length = (cache.lengths(1, n)[-1] for n in (len(texts), max(map(len, texts))))
    return decode.pad_prompts(texts, 0, rows=rows, length=length)


def _best(count: int, scores: Array, *others: Array) -> tuple[Array, ...]:
    """The `count` highest scores of each row, and the entries of `others` that belong to them."""
    scores, at = jax.lax.top_k(scores, count)
    pick = lambda x: jnp.take_along_axis(x, at.reshape(*at.shape, *[1] * (x.ndim - 2)), 1)
    return scores, *(pick(x) for x in others)


def _repeat(state: decode.State, beams: int) -> decode.State:
    """Each row `beams` times."""
    rows = jnp.arange(state.position.shape[0]).repeat(beams)
    segments = state.source_segments
    return decode.State(
        jax.tree.map(lambda x: x[rows], state.cache),
        state.position[rows],
        segments if segments is None else segments[rows],
    )


def _select(state: decode.State, rows: Int[Array, " BK"]) -> decode.State:
    """The state in which row i continues row `rows[i]`; the source is the same for all beams of a row."""
    caches = tuple(x._replace(key=x.key[rows], value=x.value[rows]) for x in state.cache)
    return state._replace(cache=caches)
