"""One step of the engine, in two programs: the logits of every slot, and its next token by the request's settings.

Settings are arrays with an entry a slot, so that one compiled program serves every request. What a slot gets depends on
its own entries only. The second program does not depend on the length of the caches, so it is compiled once.

Letters: B slots, S entries of a slot, V vocabulary, W words of 32 bits, N listed tokens.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import EncoderDecoderConfig
from jaxlm.generation.cache import Caches
from jaxlm.generation.prefill import source_segments
from jaxlm.generation.settings import MAX_TOP
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.ops import penalties, sampling

# Tokens of a request that are banned until a number of tokens was written.
MAX_BANNED = 64


class Texts(NamedTuple):
    """The text in each slot."""

    # the newest token, which the caches do not contain yet, and its index
    token: Int[Array, " B"]
    position: Int[Array, " B"]
    # all tokens
    history: Int[Array, "B S"]
    # of the source of an encoder-decoder
    source_length: Int[Array, " B"]


class SlotSettings(NamedTuple):
    """Settings of the request in each slot, see `settings.Settings`; change when a request comes."""

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    min_p: Float[Array, " B"]
    repetition_penalty: Float[Array, " B"]
    presence_penalty: Float[Array, " B"]
    frequency_penalty: Float[Array, " B"]
    no_repeat_ngram: Int[Array, " B"]
    seed: Int[Array, " B"]
    prompt_length: Int[Array, " B"]
    has_log_probs: Bool[Array, " B"]
    has_bias: Bool[Array, " B"]
    bias: Float[Array, "B V"]
    # tokens that are banned while fewer than `banned_until` were written
    banned: Int[Array, "B N"]
    banned_until: Int[Array, "B N"]


class Control(NamedTuple):
    """What the host decides for each step."""

    # slots that get a token
    active: Bool[Array, " B"]
    # number of tokens written before this one
    written: Int[Array, " B"]
    # the token, where it is settled already; -1 elsewhere
    forced: Int[Array, " B"]
    has_allowed: Bool[Array, " B"]
    # bits of the tokens that a constraint allows
    allowed: Int[Array, "B W"]


class Output(NamedTuple):
    """The tokens and, where asked for, the log-probabilities that the model itself gives them."""

    token: Int[Array, " B"]
    log_prob: Float[Array, " B"]
    top: Int[Array, "B 20"]
    top_log_probs: Float[Array, "B 20"]


@functools.partial(jax.jit, static_argnames=("model", "vocab_size"), donate_argnames="caches")
def forward(
    model: CausalLM | Seq2SeqLM, params: Any, caches: Caches, texts: Texts, *, vocab_size: int
) -> tuple[Float[Array, "B V"], Caches]:
    """Logits of what follows the newest tokens, and the caches with these in them.

    Ids from `vocab_size` on are padding of the table.
    """
    inputs: dict[str, Any] = {}
    memory = caches[0].memory
    if memory is not None:
        segments = source_segments(texts.source_length, memory.key.shape[2])
        inputs["memory_segment_ids"] = segments
    if not isinstance(model.config, EncoderDecoderConfig) and model.config.rope_switch is not None:
        inputs["text_lengths"] = texts.position + 1
    result: Any = model.apply(
        {"params": params},
        texts.token[:, None],
        positions=texts.position[:, None],
        cache=caches,
        method="with_cache",
        **inputs,
    )
    logits, caches = result
    return logits[:, 0, :vocab_size], caches


@functools.partial(jax.jit, donate_argnames="texts")
def write(
    logits: Float[Array, "B V"], texts: Texts, settings: SlotSettings, control: Control
) -> tuple[Texts, Output]:
    """Chooses the next token of each active slot and adds it to its text."""
    log_probs = _log_probs(logits, settings.has_log_probs.any())
    token = _choose(logits, texts, settings, control)
    chosen = jnp.take_along_axis(log_probs.all, token[:, None], axis=1)[:, 0]
    rows = jnp.arange(token.shape[0])
    texts = texts._replace(
        token=jnp.where(control.active, token, texts.token),
        position=texts.position + control.active,
        # in a slot that is not active this is behind the end of the text
        history=texts.history.at[rows, texts.position + 1].set(token, mode="drop"),
    )
    return texts, Output(token, chosen, log_probs.top, log_probs.top_log_probs)


@functools.partial(jax.jit, donate_argnames="texts")
def insert(
    texts: Texts,
    slot: Int[Array, ""],
    tokens: Int[Array, " S"],
    length: Int[Array, ""],
    source_length: Int[Array, ""],
) -> Texts:
    """The texts with another one in a slot."""
    return Texts(
        texts.token.at[slot].set(tokens[length - 1]),
        texts.position.at[slot].set(length - 1),
        texts.history.at[slot].set(tokens),
        texts.source_length.at[slot].set(source_length),
    )


class _LogProbs(NamedTuple):
    all: Float[Array, "B V"]
    top: Int[Array, "B 20"]
    top_log_probs: Float[Array, "B 20"]


def _log_probs(logits: Float[Array, "B V"], asked: Bool[Array, ""]) -> _LogProbs:
    count = min(MAX_TOP, logits.shape[-1])

    def compute(logits):
        all_ = jax.nn.log_softmax(logits)
        best, ids = jax.lax.top_k(all_, count)
        return _LogProbs(all_, ids, best)

    def skip(logits):
        shape = (logits.shape[0], count)
        return _LogProbs(logits, jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))

    return jax.lax.cond(asked, compute, skip, logits)


def _choose(
    logits: Float[Array, "B V"], texts: Texts, settings: SlotSettings, control: Control
) -> Int[Array, " B"]:
    """The next token of each slot; each change of the logits costs nothing if no slot asks for it.

    The order is that of transformers: bias, penalties, n-grams, tokens that come too early, constraints, and only for
    sampling temperature, top-k, top-p and min-p.
    """
    s, length = settings, texts.position + 1
    is_early = control.written[:, None] < s.banned_until
    changes = (
        (s.has_bias, lambda x: x + s.bias),
        (
            s.repetition_penalty != 1,
            lambda x: penalties.penalize_seen(x, texts.history, length, s.repetition_penalty),
        ),
        (
            (s.presence_penalty != 0) | (s.frequency_penalty != 0),
            lambda x: penalties.penalize_frequent(
                x,
                texts.history,
                s.prompt_length,
                length,
                s.presence_penalty,
                s.frequency_penalty,
            ),
        ),
        (
            s.no_repeat_ngram > 0,
            lambda x: penalties.ban_repeated_ngrams(x, texts.history, length, s.no_repeat_ngram),
        ),
        (is_early, lambda x: penalties.ban(x, s.banned, is_early)),
        (control.has_allowed, lambda x: penalties.allow(x, control.allowed)),
    )
    for asked, change in changes:
        logits = jax.lax.cond(asked.any(), change, lambda x: x, logits)
    best = jnp.argmax(logits, -1).astype(jnp.int32)
    samples = s.temperature > 0

    def draw(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
        logits = logits / jnp.where(samples, s.temperature, 1)[:, None]
        limits = (s.top_k < logits.shape[-1]) | (s.top_p < 1) | (s.min_p > 0)
        keep = lambda x: sampling.keep_likely(x, s.top_k, s.top_p, s.min_p)
        logits = jax.lax.cond((limits & samples).any(), keep, lambda x: x, logits)
        # the randomness of a token depends on the request's seed and the index of the token only
        make = lambda seed, index: jax.random.fold_in(jax.random.key(seed), index)
        keys = jax.vmap(make)(s.seed, control.written)
        drawn = jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
        return jnp.where(samples, drawn, best)

    token = jax.lax.cond(samples.any(), draw, lambda logits: best, logits)
    return jnp.where(control.forced >= 0, control.forced, token)
