"""Perplexity of a causal language model with a sliding window: every token once, each with enough context.

The definition is that of transformers' guide ("Perplexity of fixed-length models"): windows of `window` tokens begin
every `stride` tokens, and each scores the tokens that the windows before it did not, so that a token has at least
`window - stride` tokens of context, or all that there is. A document begins with the model's bos token (with eos, where
it has no other), as in lm-evaluation-harness, so that its first token is scored too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.generation import scoring
from jaxlm.models.heads import CausalLM
from jaxlm.run import bootstrap
from jaxlm.run.model import Model
from jaxlm.tasks.pretraining.decoder import bos_before

# tokens that are processed at a time
_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """The result over some documents."""

    documents: int
    tokens: int
    words: int
    bytes: int
    # loss [nats per token], perplexity, word_perplexity, byte_perplexity, bits_per_byte
    metrics: dict[str, float]
    # by resampling documents; empty for a single one
    intervals: dict[str, tuple[float, float]]
    # of each document: negative log-probability in nats, tokens, words, bytes
    table: np.ndarray


def windows(length: int, window: int, stride: int, given: int = 1) -> list[tuple[int, int, int]]:
    """(begin, end, first token to score) of the windows over tokens of which the first `given` are not scored.

    Raises:
        ValueError: the stride is not between 1 and window - 1.
    """
    if not 1 <= stride < window:
        raise ValueError(f"stride={stride} is out of range: 1 to {window - 1}, less than a window")
    found, scored = [], given
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > scored:
            found.append((begin, end, scored))
            scored = end
        if end == length:
            break
    return found


def perplexity(
    model: Model,
    texts: Sequence[str],
    *,
    stride: int | None = None,
    samples: int = 0,
    seed: int = 0,
) -> Perplexity:
    """Perplexity per token, word (between white space) and byte (of UTF-8), and bits per byte, over documents.

    Args:
        model: of a task whose model is a decoder; its `data.seq_len` is the window.
        texts: documents.
        stride: tokens between windows; default: half a window.
        samples: of the bootstrap over documents; 0: no intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: the model is no decoder, or the stride is out of range.
    """
    task = model.task
    if not isinstance(task.model, CausalLM):
        raise ValueError(
            f"{model.folder}: task {task.name} has no causal language model: --stride is for those"
        )
    size = model.config.data.seq_len
    stride = size // 2 if stride is None else stride
    begins = _begin(model)
    ids_of = task.tokenizer.encode_batch(list(texts))
    encoded = [np.array([*begins, *ids], np.int64) for ids in ids_of]
    parts = [
        (i, ids[begin:end], end - first)
        for i, ids in enumerate(encoded)
        for begin, end, first in windows(len(ids), size, stride, max(1, len(begins)))
    ]
    with jax.set_mesh(model.mesh):
        scores = scoring.follow(
            task.model,
            model.params,
            [ids[:-1].tolist() for _, ids, _ in parts],
            [ids[1:].tolist() for _, ids, _ in parts],
            rows=max(1, _TOKENS // size),
        )
    table = np.zeros((len(texts), 4))
    for (i, _, count), (log_probs, _) in zip(parts, scores):
        table[i, :2] += -log_probs[-count:].astype(np.float64).sum(), count
    table[:, 2] = [len(text.split()) for text in texts]
    table[:, 3] = [len(text.encode()) for text in texts]
    if not table[:, 1].sum():
        raise ValueError("the texts have no token that follows another one")
    metrics = _metrics(table.sum(0))
    intervals: dict[str, tuple[float, float]] = {}
    if samples and len(texts) > 1:
        drawn = [_metrics(table[d].sum(0)) for d in bootstrap.draws(len(texts), samples, seed)]
        intervals = bootstrap.percentiles({n: np.array([m[n] for m in drawn]) for n in drawn[0]})
    _, tokens, words, size = map(int, table.sum(0))
    return Perplexity(len(texts), tokens, words, size, metrics, intervals, table)


def token_losses(model: Model, text: str) -> list[tuple[str, float]]:
    """The tokens of a text as text, each with its negative log-probability in nats; the first window only."""
    begins, tokenizer = _begin(model), model.task.tokenizer
    ids = [*begins, *tokenizer.encode(text)][: model.config.data.seq_len]
    if len(ids) < 2:
        return []
    with jax.set_mesh(model.mesh):
        rows = max(1, _TOKENS // model.config.data.seq_len)
        [(log_probs, _)] = scoring.follow(
            model.task.model, model.params, [ids[:-1]], [ids[1:]], rows=rows
        )
    found = [(tokenizer.piece(i), -float(x)) for i, x in zip(ids[1:], log_probs)]
    return found[max(len(begins) - 1, 0) :]


def _begin(model: Model) -> tuple[int, ...]:
    """The token before a document."""
    tokenizer: Any = model.task.tokenizer
    if tokenizer.frame is not None and tokenizer.frame.before:
        return tokenizer.frame.before
    bos = bos_before(tokenizer)
    token = bos if bos is not None else tokenizer.eos_id
    return () if token is None else (token,)


def _metrics(sums: np.ndarray) -> dict[str, float]:
    nats, tokens, words, size = sums
    exp = lambda x: math.exp(x) if x < 700 else math.inf
    return {
        "loss": nats / tokens,
        "perplexity": exp(nats / tokens),
        "word_perplexity": exp(nats / words),
        "byte_perplexity": exp(nats / size),
        "bits_per_byte": nats / size / math.log(2),
    }
