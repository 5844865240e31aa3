"""Losses as weighted sums over tokens; the caller divides once by the global weight.

Letters: B rows, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.ops import cpu, target

# Maximum number of float32 logits on one device at a time: 64 MiB on a CPU. Accelerators need larger products to be
# busy, and each chunk reads and writes the gradient of the whole table once: 512 MiB (docs/performance.md).
MAX_LOGITS = {"cpu": 2**24, "gpu": 2**27, "tpu": 2**27}


class TokenLoss(NamedTuple):
    """Weighted sums over all tokens of a batch."""

    loss: Float[Array, ""]
    # tokens whose target is more probable than every other token
    correct: Float[Array, ""]


def token_cross_entropy(
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    bias: Float[Array, " V"] | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    smoothed_ids: int | None = None,
) -> TokenLoss:
    """Cross entropy of the softmax over the vocabulary, without materialising the logits of all positions.

    The sequence is split into chunks. Under differentiation each chunk's logits give its loss and the gradients with
    respect to `hidden`, `unembedding` and `bias` at once, so that the backward pass does not recompute logits.
    Targets and weights are treated as constants. On a mesh that splits the rows: `models.vocabulary`.

    Args:
        hidden: last hidden states, in the compute dtype.
        unembedding: output table; cast to the dtype of `hidden` for the product, which sums in float32.
        targets: the correct tokens.
        weights: weight of each position in the sums; 0 where there is nothing to predict.
        bias: added to the logits.
        softcap: logits become softcap * tanh(logits / softcap).
        z_loss: factor on log(Z)^2 (PaLM, 2204.02311, section 5).
        label_smoothing: fraction of the target distribution that is uniform over the vocabulary.
        smoothed_ids: number of ids, from 0 on, over which it is uniform: the rows of the table behind the tokenizer's
            entries only round its size up; None: all.
    """
    rows, length = hidden.shape[:2]
    chunks = chunk_count(length, rows * unembedding.shape[0])
    if bias is None:
        bias = jnp.zeros(unembedding.shape[0], jnp.float32)
    options = (softcap, z_loss, label_smoothing, smoothed_ids)
    return TokenLoss(*_chunked(options, chunks, hidden, unembedding, bias, targets, weights))


def chunk_count(length: int, logits_per_position: int) -> int:
    """The smallest number of equal chunks with at most MAX_LOGITS logits each."""
    most = MAX_LOGITS[target.platform()]
    for count in range(1, length):
        if length % count == 0 and length // count * logits_per_position <= most:
            return count
    return length


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _chunked(options, chunks, hidden, unembedding, bias, targets, weights):
    table = unembedding.astype(hidden.dtype)

    def add(sums, chunk):
        loss, correct, _ = _chunk_loss(options, *chunk, table, bias)
        return (sums[0] + loss, sums[1] + correct), None

    zero = jnp.zeros((), jnp.float32)
    return _scan(add, (zero, zero), split_chunks(chunks, hidden, targets, weights), chunks)[0]


@functools.partial(_chunked.defjvp, symbolic_zeros=True)
def _chunked_jvp(options, chunks, primals, tangents):
    """Computes the gradients with the loss; reverse mode transposes the products below, which only scales them."""
    (loss, correct), gradients = _chunked_with_gradients(options, chunks, *primals)
    d_loss = jnp.zeros((), jnp.float32)
    for gradient, tangent in zip(gradients, tangents):
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
            d_loss = d_loss + (gradient * tangent).astype(jnp.float32).sum()
    return (loss, correct), (d_loss, jnp.zeros_like(correct))


def _chunked_with_gradients(options, chunks, hidden, unembedding, bias, targets, weights):
    """The sums of `_chunked`, and the gradients of the loss with respect to `hidden`, `unembedding` and `bias`."""
    table = unembedding.astype(hidden.dtype)

    def add(carry, chunk):
        loss, correct, d_logits = _chunk_loss(options, *chunk, table, bias)
        d_bias = d_logits.sum((0, 1))
        d_logits = d_logits.astype(hidden.dtype)
        d_hidden = jnp.einsum("BTV,VD->BTD", d_logits, table)
        d_table = _table_gradient(d_logits, chunk[0])
        return jax.tree.map(jnp.add, carry, (loss, correct, d_table, d_bias)), d_hidden

    zero = jnp.zeros((), jnp.float32)
    carry = (zero, zero, jnp.zeros(unembedding.shape, jnp.float32), jnp.zeros_like(bias))
    split = split_chunks(chunks, hidden, targets, weights)
    (loss, correct, d_table, d_bias), d_hidden = _scan(add, carry, split, chunks)
    d_hidden = jnp.swapaxes(d_hidden, 0, 1).reshape(hidden.shape)
    return (loss, correct), (d_hidden, d_table.astype(unembedding.dtype), d_bias)


def _table_gradient(d_logits, hidden):
    """Gradient of the table [V, D] in float32."""
    if target.uses_cpu_ops():
        return cpu.sum_over_rows(d_logits, hidden, jnp.float32)
    return jnp.einsum("BTV,BTD->VD", d_logits, hidden, preferred_element_type=jnp.float32)


def per_token_log_probs(
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    *,
    bias: Float[Array, " V"] | None = None,
    softcap: float | None = None,
    shards: int = 1,
) -> Float[Array, "B T"]:
    """Log-probability of each target in the softmax over the vocabulary, in float32; never materialises all logits.

    Sums over a sequence, as in DPO (2305.18290, equation 7), are weighted sums of these. Supports all
    derivatives; the backward pass recomputes the logits of each chunk.

    Args:
        hidden: last hidden states, in the compute dtype.
        unembedding: output table; cast to the dtype of `hidden` for the product, which sums in float32.
        targets: the tokens to score.
        bias: added to the logits.
        softcap: logits become softcap * tanh(logits / softcap).
        shards: number of shards of the rows; determines the length of a chunk.
    """
    length = hidden.shape[1]
    rows = max(hidden.shape[0] // shards, 1)
    longest = max(MAX_LOGITS[target.platform()] // (rows * unembedding.shape[0]), 1)
    chunks = -(-length // longest)
    # pad the end so that all chunks have the same length
    padding = -length % chunks
    hidden, targets = (
        jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2)) for x in (hidden, targets)
    )

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def log_probs(hidden, targets, unembedding, bias):
        table = unembedding.astype(hidden.dtype)
        logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias
        logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
        is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
        at_target = jnp.where(is_target, logits, 0.0).sum(-1)
        return at_target - jax.nn.logsumexp(logits, axis=-1)

    def step(carry, chunk):
        return carry, log_probs(*chunk, unembedding, bias)

    y = _scan(step, None, split_chunks(chunks, hidden, targets), chunks)[1]
    return jnp.swapaxes(y, 0, 1).reshape(targets.shape)[:, :length]


def split_chunks(chunks, *arrays):
    """[B, T, ...] -> [chunks, B, T / chunks, ...]."""

    def one(x):
        x = x.reshape(x.shape[0], chunks, x.shape[1] // chunks, *x.shape[2:])
        return jnp.swapaxes(x, 0, 1)

    return tuple(one(x) for x in arrays)


def _scan(f, carry, xs, chunks):
    """`lax.scan`, without a loop if there is one chunk."""
    if chunks > 1:
        return jax.lax.scan(f, carry, xs)
    carry, y = f(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], y)


def _chunk_loss(options, hidden, targets, weights, table, bias):
    """Loss, number of correct predictions and gradient of the loss with respect to the raw logits, of one chunk."""
    softcap, z_loss, smoothing, smoothed_ids = options
    logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32) + bias
    slope = 1.0
    if softcap is not None:
        squashed = jnp.tanh(logits / softcap)
        logits, slope = softcap * squashed, 1 - jnp.square(squashed)
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    at_target = jnp.where(is_target, logits, 0.0).sum(-1)
    best_other = jnp.where(is_target, -jnp.inf, logits).max(-1)
    top = jnp.maximum(at_target, best_other)
    shifted = jnp.exp(logits - top[..., None])
    total = shifted.sum(-1)
    log_z = jnp.log(total) + top
    probabilities = shifted / total[..., None]

    expected = (1 - smoothing) * at_target
    uniform = 0.0
    if smoothing:
        size = smoothed_ids or logits.shape[-1]
        uniform = smoothing / size
        expected = expected + uniform * logits[..., :size].sum(-1)
        if size < logits.shape[-1]:
            uniform = jnp.where(jnp.arange(logits.shape[-1]) < size, uniform, 0.0)
    losses = log_z - expected + z_loss * jnp.square(log_z)
    d_logits = probabilities * (1 + 2 * z_loss * log_z)[..., None]
    d_logits = d_logits - jnp.where(is_target, 1 - smoothing + uniform, uniform)
    d_logits = d_logits * slope * weights[..., None]
    # a tie is not correct: a collapsed model ties everywhere
    correct = (at_target > best_other).astype(jnp.float32)
    return (losses * weights).sum(), (correct * weights).sum(), d_logits


def binary_cross_entropy(
    logits: Float[Array, "B T"], labels: Bool[Array, "B T"], weights: Float[Array, "B T"]
) -> TokenLoss:
    """Weighted sums of the binary cross entropy and of the correct predictions."""
    logits = logits.astype(jnp.float32)
    losses = jax.nn.softplus(jnp.where(labels, -logits, logits))
    correct = (logits > 0) == labels
    return TokenLoss((losses * weights).sum(), (correct * weights).sum())


def class_cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, " B"],
    weights: Float[Array, " B"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Weighted sum of the cross entropy over a small number of classes."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    expected = jax.nn.one_hot(labels, logits.shape[-1])
    expected = expected * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return -((expected * log_probs).sum(-1) * weights).sum()
