"""Cross entropy in blocks of the vocabulary, for large tables that are split over devices.

`ops.losses` adds up the gradient of the whole table in float32 while it goes through the positions: for 128,000 entries
of width 4096, 2.1 GB. Here the gradient of a block of the table is complete, and can be reduced to the share of it that
a device keeps, before the next block begins. That takes one more product: the softmax is known only after all blocks.

Letters: B rows, T positions, D model width, V vocabulary, W width of a device's share of the table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.ops.losses import TokenLoss


class Blocks(NamedTuple):
    """How a table is cut; static."""

    number: int
    # parts into which XLA splits the vocabulary over devices: each block has some rows of each
    parts: int
    # of a device's share [V, W] of the table: all of it [V, D], in the compute dtype
    gather: Callable[[Array], Array]
    # of a device's gradient [V / number, D] of a block: the share [V / number, W] of the sum over devices
    reduce: Callable[[Array], Array]
    # of an array by block: the same, with the vocabulary of each block split over devices
    place: Callable[[Array], Array]

    def cut(self, x: Float[Array, "V ..."]) -> Float[Array, "number v ..."]:
        """An array by block."""
        x = x.reshape(self.parts, self.number, -1, *x.shape[1:]).swapaxes(0, 1)
        return self.place(x.reshape(self.number, -1, *x.shape[3:]))

    def joined(self, x: Float[Array, "number v ..."]) -> Float[Array, "V ..."]:
        """The inverse of `cut`."""
        x = x.reshape(self.number, self.parts, -1, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(-1, *x.shape[3:])


def token_cross_entropy(
    hidden: Float[Array, "B T D"],
    unembedding: Float[Array, "V W"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    bias: Float[Array, " V"],
    blocks: Blocks,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    smoothed_ids: int | None = None,
) -> TokenLoss:
    """`losses.token_cross_entropy` of the rows of this device, from its share of the table, whose gradient is that of
    the rows of all devices."""
    smoothed_ids = smoothed_ids or unembedding.shape[0]
    options = (softcap, z_loss, label_smoothing, smoothed_ids)
    return TokenLoss(*_sums(options, blocks, hidden, unembedding, bias, targets, weights))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sums(options, blocks, hidden, unembedding, bias, targets, weights):
    cut = _cut(blocks, unembedding, bias)
    return _softmax(options, hidden, cut, targets, weights)[0]


@functools.partial(_sums.defjvp, symbolic_zeros=True)
def _sums_jvp(options, blocks, primals, tangents):
    """Computes the gradients with the loss; reverse mode transposes the products below, which only scales them."""
    (loss, correct), gradients = _with_gradients(options, blocks, *primals)
    d_loss = jnp.zeros((), jnp.float32)
    for gradient, tangent in zip(gradients, tangents):
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
            d_loss = d_loss + (gradient * tangent).astype(jnp.float32).sum()
    return (loss, correct), (d_loss, jnp.zeros_like(correct))


def _cut(blocks, unembedding, bias):
    """Table, bias and ids by block."""
    ids = jnp.arange(len(bias))
    return tuple(map(blocks.cut, (blocks.gather(unembedding), bias, ids)))


def _logits(softcap, hidden, table, bias):
    """Logits of a block in float32, and their slope with respect to those before the soft cap."""
    logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32) + bias
    if softcap is None:
        return logits, 1.0
    squashed = jnp.tanh(logits / softcap)
    return softcap * squashed, 1 - jnp.square(squashed)


def _softmax(options, hidden, cut, targets, weights):
    """Weighted sums of losses and of correct predictions, and the logarithm of the softmax's sum [B, T]."""
    softcap, z_loss, smoothing, smoothed_ids = options

    def add(carry, block):
        top, total, at_target, best_other, smoothed = carry
        table, bias, ids = block
        logits, _ = _logits(softcap, hidden, table, bias)
        is_target = ids == targets[..., None]
        at_target = at_target + jnp.where(is_target, logits, 0.0).sum(-1)
        best_other = jnp.maximum(best_other, jnp.where(is_target, -jnp.inf, logits).max(-1))
        if smoothing:
            smoothed = smoothed + jnp.where(ids < smoothed_ids, logits, 0.0).sum(-1)
        new = jnp.maximum(top, logits.max(-1))
        total = total * jnp.exp(top - new) + jnp.exp(logits - new[..., None]).sum(-1)
        return (new, total, at_target, best_other, smoothed), None

    zero = jnp.zeros(targets.shape, jnp.float32)
    least = jnp.full(targets.shape, -jnp.inf)
    carry, _ = jax.lax.scan(add, (least, zero, zero, least, zero), cut)
    top, total, at_target, best_other, smoothed = carry
    log_z = jnp.log(total) + top
    expected = (1 - smoothing) * at_target + smoothing / smoothed_ids * smoothed
    losses = log_z - expected + z_loss * jnp.square(log_z)
    correct = (at_target > best_other).astype(jnp.float32)
    return ((losses * weights).sum(), (correct * weights).sum()), log_z


def _with_gradients(options, blocks, hidden, unembedding, bias, targets, weights):
    """The sums, and the gradients of the loss with respect to `hidden`, the share of the table, and `bias`."""
    softcap, z_loss, smoothing, smoothed_ids = options
    cut = _cut(blocks, unembedding, bias)
    sums, log_z = _softmax(options, hidden, cut, targets, weights)

    def add(d_hidden, block):
        table, bias, ids = block
        logits, slope = _logits(softcap, hidden, table, bias)
        d_logits = jnp.exp(logits - log_z[..., None]) * (1 + 2 * z_loss * log_z)[..., None]
        uniform = jnp.where(ids < smoothed_ids, smoothing / smoothed_ids, 0.0) if smoothing else 0.0
        is_target = ids == targets[..., None]
        d_logits = d_logits - jnp.where(is_target, 1 - smoothing + uniform, uniform)
        d_logits = d_logits * slope * weights[..., None]
        d_bias = d_logits.sum((0, 1))
        d_logits = d_logits.astype(hidden.dtype)
        of_block = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        d_hidden = d_hidden + of_block("BTV,VD->BTD", d_logits, table)
        return d_hidden, (blocks.reduce(of_block("BTV,BTD->VD", d_logits, hidden)), d_bias)

    d_hidden, (d_table, d_bias) = jax.lax.scan(add, jnp.zeros(hidden.shape, jnp.float32), cut)
    d_table = blocks.joined(d_table).astype(unembedding.dtype)
    return sums, (d_hidden.astype(hidden.dtype), d_table, blocks.joined(d_bias))
