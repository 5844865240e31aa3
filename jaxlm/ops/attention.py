"""Scaled dot-product attention with one signature and three implementations that give the same result.

Letters: B batch, T query positions, S key positions, N query heads, K key/value heads, G query heads per key head,
H head width.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.ops import context, cpu, masks, splash, target

Implementation = Literal["auto", "xla", "cudnn", "splash"]


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: masks.Mask,
    *,
    bias: Float[Array, "#B N #T S"] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    implementation: Implementation = "auto",
    tap: Callable[[Float[Array, "B N T S"]], Float[Array, "B N T S"]] | None = None,
) -> Float[Array, "B T N H"]:
    """Averages values weighted by the softmax of query-key products (Vaswani et al. 2017, 1706.03762, equation 1).

    Args:
        q: queries; N is a multiple of K, query head n uses key head n // (N / K) (Ainslie et al. 2023, 2305.13245).
        k: keys.
        v: values.
        mask: which keys each query may attend to.
        bias: added to the scores before the mask; T is 1 if it is the same for all queries.
        scale: factor on the scores; default 1 / sqrt(H).
        softcap: scores become softcap * tanh(scores / softcap) before bias and mask.
        sinks: a score of each head that counts in the softmax like that of one more key, which has no value.
        dropout: fraction of the probabilities set to zero if `key` is given.
        key: random key for the dropout.
        implementation: `auto` selects the fastest on the target platform that supports the arguments.
        tap: is given the probabilities and returns those to use; with one, always the plain formula: kernels have none.

    Raises:
        ValueError: the named implementation does not support the arguments.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dropout = dropout if key is not None else 0.0
    options: Any = dict(bias=bias, scale=scale, softcap=softcap, dropout=dropout, key=key)
    if tap is not None:
        return _plain(q, k, v, mask, sinks=sinks, tap=tap, **options)
    chosen = resolve(implementation)
    reason = _unsupported(chosen, q, k, mask, bias, softcap, sinks, dropout)
    if (lines := _choices.get()) is not None:
        lines[f"xla: {chosen} does not support {reason}" if reason else chosen] = None
    if reason and implementation != "auto":
        raise ValueError(
            f"compute.attention={implementation} does not support {reason}; use auto or xla"
        )
    if chosen == "splash" and not reason:
        return splash.attention(q, k, v, mask, scale=scale, softcap=softcap)
    if chosen == "cudnn" and not reason:
        if target.uses_kernel_stand_ins():
            return _cudnn_stand_in(q, k, v)
        return _cudnn(q, k, v, mask, bias=bias, scale=scale)
    if context.shards(q.shape[1]) > 1:
        k, v = context.gathered(k), context.gathered(v)
        plain = functools.partial(
            _plain, sinks=sinks, scale=scale, softcap=softcap, dropout=dropout
        )
        return context.by_blocks(plain, q, k, v, mask, bias=bias, key=key)
    if target.uses_cpu_ops() and sinks is None:
        return cpu.attention(q, k, v, mask, **options)
    return _plain(q, k, v, mask, sinks=sinks, **options)


_choices: contextvars.ContextVar = contextvars.ContextVar("_choices", default=None)


@contextlib.contextmanager
def choices() -> Iterator[dict[str, None]]:
    """Collects which implementations are used by what is traced in this context, and why not the fastest one.

    The keys of the dict are one line each, such as "xla: splash does not support a bias on the scores".
    """
    lines: dict[str, None] = {}
    token = _choices.set(lines)
    try:
        yield lines
    finally:
        _choices.reset(token)


def resolve(implementation: Implementation) -> Implementation:
    """The implementation that `auto` selects on the target platform."""
    if implementation != "auto":
        return implementation
    fastest: dict[str, Implementation] = {"tpu": "splash", "gpu": "cudnn"}
    return fastest.get(target.platform(), "xla")


def _unsupported(implementation, q, k, mask, bias, softcap, sinks, dropout) -> str | None:
    """The first argument that the implementation does not support, for its error message; None if it supports all."""
    if implementation == "xla":
        return None
    if dropout:
        return "dropout of attention probabilities"
    if sinks is not None:
        return "attention sinks"
    if implementation == "cudnn":
        if context.shards(q.shape[1]) > 1:
            return "rows split over mesh.context"
        if softcap is not None:
            return "a soft cap on scores"
        if q.dtype not in (jnp.bfloat16, jnp.float16):
            return f"{q.dtype} (it needs bfloat16 or float16)"
        if q.shape[-1] % 8 or q.shape[-1] > 128:
            return f"heads of width {q.shape[-1]} (it needs a multiple of 8 up to 128)"
        if bias is not None and bias.shape[2] == 1:
            return "a bias by key alone (which it would round to half precision)"
        if (q.shape[1] % 2 or k.shape[1] % 2) and not (bias is None and _is_plain(mask)):
            return f"lengths {q.shape[1]} and {k.shape[1]} with a mask or bias (they must be even)"
        return None
    if bias is not None:
        return "a bias on the scores"
    if mask.dense is not None or mask.q_positions is not None:
        return "a mask given as a matrix or a key cache"
    if mask.kv_prefix is not None:
        return "a bidirectional prefix"
    count = context.shards(q.shape[1])
    if q.shape[1] % (128 * count) or k.shape[1] % (128 * count):
        of = f"128 x mesh.context={count}" if count > 1 else "128"
        return f"lengths {q.shape[1]} and {k.shape[1]} that are not multiples of {of}"
    shards = context.batch_shards()
    if q.shape[0] % shards:
        return f"a batch of {q.shape[0]} that the {shards} batch shards of the mesh do not divide"
    return None


def _plain(q, k, v, mask, *, bias, scale, softcap, sinks, dropout, key, tap=None):
    """Plain implementation, for everything that the fused kernels do not support."""
    (batch, length, heads, _), (kv_len, kv_heads) = q.shape, k.shape[1:3]
    allowed = masks.matrix(mask, length, kv_len)
    q = (q * scale).reshape(batch, length, kv_heads, heads // kv_heads, -1)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32)
    probabilities = _probabilities(scores, allowed, bias, softcap, sinks)
    if tap is not None:
        by_head = probabilities.reshape(batch, heads, length, kv_len)
        probabilities = tap(by_head).reshape(probabilities.shape)
    if dropout:
        kept = jax.random.bernoulli(key, 1 - dropout, scores.shape)
        probabilities = jnp.where(kept, probabilities / (1 - dropout), 0.0)
    mixed = jnp.einsum("BKGTS,BSKH->BTKGH", probabilities.astype(v.dtype), v)
    return mixed.reshape(batch, length, heads, -1)


def _probabilities(
    scores: Float[Array, "B K G T S"],
    allowed: Array | None,
    bias: Array | None,
    softcap: float | None,
    sinks: Array | None,
) -> Float[Array, "B K G T S"]:
    """The softmax of the scores after the soft cap, the bias [B, N, T, S] and the mask [B, 1, T, S]; sinks [N]."""
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        kv_heads, group = scores.shape[1:3]
        bias = jnp.broadcast_to(bias, (bias.shape[0], kv_heads * group, *bias.shape[2:]))
        scores = scores + bias.reshape(-1, kv_heads, group, *bias.shape[2:])
    if allowed is not None:
        scores = jnp.where(allowed[:, :, None], scores, masks.MASKED)
    if sinks is None:
        return jax.nn.softmax(scores, axis=-1)
    sinks = sinks.astype(scores.dtype).reshape(1, *scores.shape[1:3], 1, 1)
    most = jax.lax.stop_gradient(jnp.maximum(scores.max(-1, keepdims=True), sinks))
    weights = jnp.exp(scores - most)
    return weights / (weights.sum(-1, keepdims=True) + jnp.exp(sinks - most))


def attend_to_cache(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    mask: masks.Mask,
    *,
    bias: Float[Array, "#B N #T S"] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
) -> Float[Array, "B T N H"]:
    """As `attend`, for few queries and many keys, which are given by head: no array of their size is made.

    A product over [B, S, K, H] would transpose all keys and values first, on a CPU at up to ten times the cost.
    """
    (batch, length, heads, width), (kv_heads, kv_len) = q.shape, k.shape[1:3]
    q = (q * (width**-0.5 if scale is None else scale)).reshape(batch, length, kv_heads, -1, width)
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", q, k, preferred_element_type=jnp.float32)
    allowed = masks.matrix(mask, length, kv_len)
    probabilities = _probabilities(scores, allowed, bias, softcap, sinks).astype(v.dtype)
    mixed = jnp.einsum("BKGTS,BKSH->BTKGH", probabilities, v)
    return mixed.reshape(batch, length, heads, width)


def _cudnn(q, k, v, mask, *, bias, scale):
    """cuDNN's fused attention through `jax.nn.dot_product_attention`."""
    allowed, causal, window = None, mask.causal, None
    if _is_plain(mask):
        window = None if mask.window is None else (mask.window - 1, 0)
    else:
        allowed, causal = masks.matrix(mask, q.shape[1], k.shape[1]), False
    bias = None if bias is None else bias.astype(q.dtype)
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=bias,
        mask=allowed,
        scale=scale,
        is_causal=causal,
        local_window_size=window,
        implementation="cudnn",
    )


@jax.custom_vjp
def _cudnn_stand_in(q, k, v):
    """Operands, result and residuals of cuDNN's kernel, and nothing of its arithmetic: `target.kernel_stand_ins`."""
    return _stand_in_forward(q, k, v)[0]


def _stand_in_forward(q, k, v):
    # barriers, because XLA would merge these operations into their neighbours, and keep none of the arrays
    q, k, v = jax.lax.optimization_barrier((q, k, v))
    sums = jnp.sum(q, -1, jnp.float32).swapaxes(1, 2)
    out = q * (k.mean((1, 2)) + v.mean((1, 2)))[:, None, None]
    out, sums = jax.lax.optimization_barrier((out, sums))
    return out, (q, k, v, out, sums)


def _stand_in_backward(kept, gradient):
    q, k, v, out, sums = jax.lax.optimization_barrier(kept)
    gradient = gradient * (out + sums.swapaxes(1, 2)[..., None].astype(out.dtype))
    mean = gradient.mean((1, 2))[:, None, None]
    return jax.lax.optimization_barrier((gradient * q, mean * k, mean * v))


_cudnn_stand_in.defvjp(_stand_in_forward, _stand_in_backward)


def _is_plain(mask: masks.Mask) -> bool:
    """Whether cuDNN needs no matrix: the mask allows everything, or is causal, with or without a window."""
    given = (mask.dense, mask.q_positions, mask.q_segment_ids, mask.kv_prefix)
    return all(x is None for x in given) and (mask.causal or mask.window is None)


def reference(q, k, v, allowed: np.ndarray, *, scale, softcap=None) -> np.ndarray:
    """Attention of one head in plain NumPy, float64: q [T, H], k and v [S, H], allowed [T, S]. For tests."""
    scores = np.asarray(q, np.float64) @ np.asarray(k, np.float64).T * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ np.asarray(v, np.float64)
