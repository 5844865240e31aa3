"""Implementations tuned for XLA's CPU backend: linear layer, norms, activations, attention.

Each is equivalent to a plain formula in `ops/linear.py`, `ops/norms.py`, `ops/activations.py` or `ops/attention.py`,
which calls it if `target.uses_cpu_ops()`. Gradients are written by hand for reverse mode; forward mode needs the plain
formulas. Do not use these on other platforms: the optimization barriers and orders of products are chosen for CPUs and
slow down other compilers.

Letters: R dims of rows, I input width, O output width, D model width; in attention B batch, T query positions,
S key positions, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops import masks

# Minimum number of queries in a block of causal attention: smaller products cost more than they save.
MIN_BLOCK = 32


# --- linear layer ---


def linear(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None,
    dims: int,
) -> Float[Array, "..."]:
    """See `ops.linear.linear`; one product of two matrices, because the gradients of products with more dims take up to
    1.3 times as long."""
    width = math.prod(kernel.shape[:dims])
    y = _product(x.reshape(-1, width), kernel.reshape(width, -1).astype(x.dtype))
    if bias is not None:
        y = y + bias.reshape(-1).astype(x.dtype)
    return y.reshape(*x.shape[: x.ndim - dims], *kernel.shape[dims:])


@jax.custom_vjp
def _product(x, kernel):
    return x @ kernel


def _product_backward(saved, d_y):
    x, kernel = saved
    return d_y @ kernel.T, sum_over_rows(x, d_y)


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


def sum_over_rows(
    x: Float[Array, "*R I"], d_y: Float[Array, "*R O"], dtype: jnp.dtype | None = None
) -> Float[Array, "I O"]:
    """x^T d_y, the gradient of a kernel; in `dtype`, by default that of the arguments.

    XLA has two libraries for products on CPUs and uses the slower one for this product, which sums over rows. The
    narrower argument is therefore transposed first, behind a barrier so that XLA does not undo it, which makes whole
    steps up to 1.07 times as fast. For equal widths the transposition costs as much as it saves.
    """
    x, d_y = (y.reshape(-1, y.shape[-1]) for y in (x, d_y))
    transposed = x.T
    if x.shape[1] > d_y.shape[1]:
        return jax.lax.optimization_barrier(sum_over_rows(d_y, x, dtype)).T
    if x.shape[1] < d_y.shape[1]:
        transposed = jax.lax.optimization_barrier(transposed)
    return jnp.matmul(transposed, d_y, preferred_element_type=dtype)


# --- norms ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normalize(
    centered: bool, eps: float, x: Float[Array, "*R D"], scale: Float[Array, " D"]
) -> Float[Array, "*R D"]:
    """x, minus its mean if `centered`, divided by the root mean square of that, times scale; in float32.

    The input and two values per row are saved for the backward pass. Its sums weighted by `scale` are matrix products,
    because XLA would otherwise broadcast `scale` to the size of the input in memory.
    """
    return _normalize_forward(centered, eps, x, scale)[0]


def _normalize_forward(centered, eps, x, scale):
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, -1, keepdims=True) if centered else jnp.zeros(())
    y = y - mean
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps)
    return y * factor * scale, (x, mean, factor, scale)


def _normalize_backward(centered, eps, saved, d_y):
    x, mean, factor, scale = saved
    y = (x.astype(jnp.float32) - mean) * factor
    d_scale = d_y * y
    d_x = d_y * scale - y * _weighted_mean(d_scale, scale)
    if centered:
        d_x = d_x - _weighted_mean(d_y, scale)
    return (d_x * factor).astype(x.dtype), d_scale.sum(range(x.ndim - 1))


def _weighted_mean(x, weights):
    """Mean of x * weights over the last dim."""
    return jnp.dot(x, weights / weights.size, precision="highest")[..., None]


normalize.defvjp(_normalize_forward, _normalize_backward)


# --- activations ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def elementwise(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), for an element-wise function; only x is saved for the backward pass.

    With automatic differentiation, gelu saves four to six arrays of the MLP's width, a third of what a block saves.
    """
    return function(x)


def _elementwise_backward(function, x, d_y):
    # without the barrier XLA computes parts of the derivative in the forward pass and stores them
    x, d_y = jax.lax.optimization_barrier((x, d_y))
    return (jax.jvp(function, (x,), (d_y,))[1],)


elementwise.defvjp(lambda function, x: (function(x), x), _elementwise_backward)


# --- attention ---


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: masks.Mask,
    *,
    bias: Float[Array, "B N T S"] | None,
    scale: float,
    softcap: float | None,
    dropout: float,
    key: Array | None,
) -> Float[Array, "B T N H"]:
    """See `ops.attention.attend`; causal attention runs in blocks of queries, each with the keys up to its end."""
    length, kv_len = q.shape[1], k.shape[1]
    allowed = masks.matrix(mask, length, kv_len)
    run = functools.partial(_attention, softcap=softcap, dropout=dropout)
    blocks = causal_blocks(mask, length, kv_len)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], length, kv_len))
    # transpose before slicing, so that the gradients of the blocks are summed before they are transposed back
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
    if blocks == 1:
        return run(q, k, v, allowed, bias, key).swapaxes(1, 2)
    assert allowed is not None, "the mask is causal"
    parts = []
    for i in range(blocks):
        start, end = i * length // blocks, (i + 1) * length // blocks
        parts.append(
            run(
                q[:, :, start:end],
                k[:, :, :end],
                v[:, :, :end],
                allowed[:, :, start:end, :end],
                None if bias is None else bias[:, :, start:end, :end],
                None if key is None else jax.random.fold_in(key, i),
            )
        )
    return jnp.concatenate(parts, axis=2).swapaxes(1, 2)


def causal_blocks(mask: masks.Mask, length: int, kv_len: int) -> int:
    """Number of blocks of queries; n of them save (n - 1) / 2n of the work."""
    is_causal = mask.causal and mask.q_positions is None and mask.kv_prefix is None
    if not is_causal or length != kv_len or length < 2 * MIN_BLOCK:
        return 1
    return min(length // MIN_BLOCK, 4)


def _attention(q, k, v, allowed, bias, key, *, softcap, dropout):
    """q [B, N, T, H], k and v [B, K, S, H] -> [B, N, T, H].

    Inside, the G query heads of a key head and the queries are merged into one dim of R = G x T rows.
    """
    heads, kv_heads = q.shape[1], k.shape[1]
    scores = _scores(q.reshape(q.shape[0], kv_heads, -1, q.shape[3]), k)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (bias.shape[0], heads, *bias.shape[2:]))
        scores = scores + bias.astype(jnp.float32).reshape(-1, *scores.shape[1:])
    if allowed is not None:
        scores = scores + jnp.tile(masks.additive(allowed), (1, 1, heads // kv_heads, 1))
    factors = None
    if dropout:
        factors = jax.random.bernoulli(key, 1 - dropout, scores.shape) / (1 - dropout)
    return _mix(scores, v, factors).reshape(*q.shape[:3], v.shape[3])


@jax.custom_vjp
def _scores(q, k):
    """Products of all queries and keys, in float32: [B, K, R, S]."""
    return jnp.einsum("BKRH,BKSH->BKRS", q, k, preferred_element_type=jnp.float32)


def _scores_backward(saved, d_scores):
    q, k = saved
    d_q = jnp.einsum("BKRS,BKSH->BKRH", d_scores, k, preferred_element_type=jnp.float32)
    return d_q.astype(q.dtype), _sum_over_queries(q, d_scores).astype(k.dtype)


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_backward)


def _sum_over_queries(x, weights):
    """[B, K, R, H] and [B, K, R, S] -> [B, K, S, H], in the order that is fastest in XLA, by up to a third."""
    sums = jnp.einsum("BKRH,BKRS->BKHS", x, weights, preferred_element_type=jnp.float32)
    return sums.swapaxes(2, 3)


@jax.custom_vjp
def _mix(scores, v, factors):
    """Softmax of the scores, times `factors` if given, times the values: [B, K, R, H].

    The division by the softmax's sum comes after the product, and the gradient is written by hand: that saves passes
    over the [B, K, R, S] scores, which cost more than the products.
    """
    return _mix_forward(scores, v, factors)[0]


def _mix_forward(scores, v, factors):
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    weights = weights.astype(v.dtype)
    dropped = weights if factors is None else (weights * factors).astype(v.dtype)
    out = jnp.einsum("BKRS,BKSH->BKRH", dropped, v, preferred_element_type=jnp.float32) / total
    out = out.astype(v.dtype)
    return out, (weights, total, v, factors, out)


def _mix_backward(saved, d_out):
    weights, total, v, factors, out = saved
    d_out = d_out.astype(jnp.float32) / total
    shared = (d_out * out).sum(-1, keepdims=True)
    d_out = d_out.astype(v.dtype)
    dropped = weights if factors is None else (weights * factors).astype(v.dtype)
    d_v = _sum_over_queries(d_out, dropped)
    d_weights = jnp.einsum("BKRH,BKSH->BKRS", d_out, v, preferred_element_type=jnp.float32)
    if factors is not None:
        d_weights = d_weights * factors
    return weights * (d_weights - shared), d_v.astype(v.dtype), None


_mix.defvjp(_mix_forward, _mix_backward)
