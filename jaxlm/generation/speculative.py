"""Speculative decoding: a cheap draft proposes several tokens, and the model checks them all in one pass.

The draft is a smaller model with the same vocabulary, or a look-up of what followed the newest tokens before. The text
has the model's own distribution, whatever the draft; greedy text is the model's greedy text. One text at a time.

Letters: K proposed tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.generation import cache, prefill
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings
from jaxlm.models.heads import CausalLM
from jaxlm.ops import sampling, speculation

# Settings whose meaning depends on more than the model's own distribution, and their neutral values.
_UNSUPPORTED = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "no_repeat_ngram": 0,
    "min_new_tokens": 0,
    "begin_suppress": (),
    "forced_first": None,
    "forced_last": None,
    "logprobs": None,
    "constraint": None,
}
# Entries of a cache are allocated in powers of two times this.
BLOCK = 128


class Proposal(NamedTuple):
    """Tokens that may come next, and the probabilities that they were drawn from."""

    tokens: Int[Array, " K"]
    probabilities: Float[Array, "K V"]


class Draft(Protocol):
    """What proposes tokens; `LookUp` or `DraftModel`."""

    def begin(self, prompt: list[int], length: int, settings: Settings, vocab_size: int) -> None:
        """Starts a text that will have at most `length` tokens."""

    def propose(self, tokens: list[int], count: int) -> Proposal:
        """`count` tokens that may follow these, the prompt among them."""


class LookUp:
    """Proposes what followed the last occurrence of the newest tokens (prompt look-up decoding)."""

    def __init__(self, longest: int = 3):
        """Compares at most the `longest` newest tokens."""
        self._longest = longest

    def begin(self, prompt: list[int], length: int, settings: Settings, vocab_size: int) -> None:
        """Starts a text."""
        self._vocab_size = vocab_size

    def propose(self, tokens: list[int], count: int) -> Proposal:
        """Nothing found: the newest token, again and again."""
        found: list[int] = []
        for size in range(min(self._longest, len(tokens) - 1), 0, -1):
            end = tokens[-size:]
            for start in range(len(tokens) - size - 1, -1, -1):
                if tokens[start : start + size] == end:
                    found = tokens[start + size : start + size + count]
                    break
            if found:
                break
        found += [tokens[-1]] * (count - len(found))
        one_hot = np.zeros((count, self._vocab_size), np.float32)
        one_hot[np.arange(count), found] = 1
        return Proposal(jnp.array(found, jnp.int32), jnp.array(one_hot))


class DraftModel:
    """Proposes what a smaller model writes."""

    def __init__(self, model: CausalLM, params: Any):
        """Takes the model and its parameters by layer (`weights.by_layer`)."""
        self._model, self._params = model, params

    def begin(self, prompt: list[int], length: int, settings: Settings, vocab_size: int) -> None:
        """Processes the prompt."""
        own = self._model.config.vocab_size
        if own is None or vocab_size > own:
            raise ValueError(
                f"the draft has {own:,} tokens, the model {vocab_size:,}: they need the same vocabulary"
            )
        if length > self._model.config.max_cached_len:
            raise ValueError(
                f"the draft reads {self._model.config.max_cached_len:,} tokens, but the text may have {length:,}"
            )
        self._settings, self._vocab_size = settings, vocab_size
        # without the newest token, and the one before, which `propose` reads again
        self._caches = _process(self._model, self._params, prompt, length)

    def propose(self, tokens: list[int], count: int) -> Proposal:
        """Draws from the model with the settings of the request."""
        newest = np.array([tokens[-2:] if len(tokens) > 1 else tokens * 2], np.int32)
        start = max(len(tokens) - 2, 0)
        proposal, self._caches = _propose(
            self._model,
            self._params,
            self._caches,
            newest,
            np.int32(start),
            np.uint32(self._settings.seed),
            _limits(self._settings, self._vocab_size),
            count=count,
        )
        return proposal


def generate(
    model: CausalLM,
    params: Any,
    request: Request,
    draft: Draft,
    *,
    vocab_size: int,
    lookahead: int = 4,
) -> Iterator[int]:
    """The tokens of a text, up to and with an end token, as they are accepted.

    Args:
        model: a decoder.
        params: its parameters by layer.
        request: prompt and settings; what depends on earlier tokens is not supported, such as penalties.
        draft: proposes tokens.
        vocab_size: ids from this one on are padding of the table.
        lookahead: tokens that are proposed at a time.

    Raises:
        ValueError: the model, the draft or a setting is not supported; the message says which.
    """
    settings, prompt = request.settings, list(request.prompt)
    if not isinstance(model, CausalLM):
        raise ValueError("speculative decoding needs a decoder")
    for name, neutral in _UNSUPPORTED.items():
        if getattr(settings, name) != neutral:
            raise ValueError(f"speculative decoding does not support {name}")
    if not 1 <= lookahead <= 64:
        raise ValueError(f"lookahead={lookahead} is out of range: 1 to 64")
    settings.check_ids(vocab_size)
    room = model.config.max_cached_len - len(prompt)
    if not prompt or room < 1:
        raise ValueError(
            f"the prompt has {len(prompt):,} tokens; 1 to {model.config.max_cached_len - 1:,} fit into the model"
        )
    limit = min(settings.max_new_tokens, room)
    return _generate(model, params, prompt, settings, limit, draft, vocab_size, lookahead)


def _generate(
    model: CausalLM,
    params: Any,
    prompt: list[int],
    settings: Settings,
    limit: int,
    draft: Draft,
    vocab_size: int,
    lookahead: int,
) -> Iterator[int]:
    # entries for proposals that go beyond the end of the text
    length = len(prompt) + limit + lookahead
    caches = _process(model, params, prompt, length)
    draft.begin(prompt, min(length, model.config.max_cached_len), settings, vocab_size)
    tokens, limits = list(prompt), _limits(settings, vocab_size)
    while len(tokens) < len(prompt) + limit:
        proposal = draft.propose(tokens, lookahead)
        newest = np.array([tokens[-1]], np.int32)
        start, seed = np.int32(len(tokens) - 1), np.uint32(settings.seed)
        kept, following, caches = _verify(
            model, params, caches, newest, start, proposal, seed, limits
        )
        new = [*np.asarray(proposal.tokens)[: int(kept)].tolist(), int(following)]
        for token in new[: len(prompt) + limit - len(tokens)]:
            tokens.append(token)
            yield token
            if token in settings.stop_ids:
                return


class Limits(NamedTuple):
    """The settings that shape a distribution, as arrays."""

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]
    min_p: Float[Array, ""]
    bias: Float[Array, " V"]


def _limits(settings: Settings, vocab_size: int) -> Limits:
    bias = settings.bias(vocab_size)
    return Limits(
        jnp.float32(settings.temperature),
        jnp.int32(min(settings.top_k or vocab_size, vocab_size)),
        jnp.float32(1.0 if settings.top_p is None else settings.top_p),
        jnp.float32(settings.min_p or 0.0),
        jnp.zeros(vocab_size) if bias is None else jnp.array(bias),
    )


def _probabilities(logits: Float[Array, "N V"], limits: Limits) -> Float[Array, "N V"]:
    """The distribution that tokens are drawn from; one-hot if greedy."""
    logits = logits + limits.bias
    best = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])
    scaled = logits / jnp.where(limits.temperature > 0, limits.temperature, 1)
    kept = sampling.keep_likely(scaled, limits.top_k, limits.top_p, limits.min_p)
    return jnp.where(limits.temperature > 0, jax.nn.softmax(kept, -1), best)


def _process(model: CausalLM, params: Any, prompt: list[int], length: int) -> cache.Caches:
    """Caches with room for `length` tokens and the prompt in them."""
    sizes = cache.lengths(BLOCK, length)
    chunk = cache.smallest((*prefill.BUCKETS, sizes[-1]), min(len(prompt), prefill.BUCKETS[-1]))
    chunk = min(chunk, sizes[-1])
    padded = np.zeros((1, -(-len(prompt) // chunk) * chunk), np.int32)
    padded[0, : len(prompt)] = prompt
    lengths = np.array([len(prompt)], np.int32)
    caches = prefill.begin(model, params, padded[:, :chunk], lengths, length=sizes[-1])
    for start in range(chunk, len(prompt), chunk):
        part = padded[:, start : start + chunk]
        caches = prefill.proceed(model, params, part, np.int32(start), caches)
    return caches


def _forward(model, params, tokens, start, caches, vocab_size) -> tuple[Array, cache.Caches]:
    positions = jnp.broadcast_to(start + jnp.arange(tokens.shape[1]), tokens.shape)
    result: Any = model.apply(
        {"params": params}, tokens, positions=positions, cache=caches, method="with_cache"
    )
    return result[0][0, :, :vocab_size], result[1]


def _key(seed: Array, position: Array, use: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), position), use)


@functools.partial(jax.jit, static_argnames=("model", "count"), donate_argnames="caches")
def _propose(model, params, caches, newest, start, seed, limits, *, count):
    """Tokens drawn one after the other, beginning after the two newest, of which the caches may lack both."""
    vocab_size = limits.bias.shape[0]
    logits, caches = _forward(model, params, newest, start, caches, vocab_size)
    last = start + newest.shape[1] - 1

    def draw(carry, index):
        logits, caches = carry
        probabilities = _probabilities(logits[None], limits)[0]
        position = last + 1 + index
        token = jax.random.categorical(_key(seed, position, 0), jnp.log(probabilities))
        logits, caches = _forward(model, params, token[None, None], position, caches, vocab_size)
        return (logits[-1], caches), (token, probabilities)

    (_, caches), (tokens, probabilities) = jax.lax.scan(
        draw, (logits[-1], caches), jnp.arange(count)
    )
    return Proposal(tokens, probabilities), caches


@functools.partial(jax.jit, static_argnames="model", donate_argnames="caches")
def _verify(model, params, caches, newest, start, proposal, seed, limits):
    """How many proposed tokens are kept, the token after them, and the caches."""
    tokens = jnp.concatenate([newest, proposal.tokens])[None]
    logits, caches = _forward(model, params, tokens, start, caches, limits.bias.shape[0])
    kept, following = speculation.accept(
        _key(seed, start, 1),
        proposal.tokens,
        proposal.probabilities,
        _probabilities(logits, limits),
    )
    return kept, following, caches
