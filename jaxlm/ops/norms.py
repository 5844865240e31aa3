"""Normalisation over the last dim, in float32 whatever the input's dtype.

The gradient is written by hand: the backward pass keeps the input and two numbers a vector, and takes its sums weighted
by `scale` as products with it, because XLA for CPUs would otherwise write `scale` out in the size of the input.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None = None,
    *,
    eps: float,
) -> Float[Array, "... D"]:
    """Layer normalisation (Ba et al. 2016, 1607.06450, equation 4)."""
    y = _scaled(True, eps, x, scale)
    return (y if bias is None else y + bias).astype(x.dtype)


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, " D"], *, eps: float
) -> Float[Array, "... D"]:
    """Root mean square normalisation (Zhang and Sennrich 2019, 1910.07467, equation 4)."""
    return _scaled(False, eps, x, scale).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scaled(centred, eps, x, scale):
    """x, minus its mean if `centred`, divided by the root mean square of that, times scale; in float32."""
    return _scaled_forward(centred, eps, x, scale)[0]


def _scaled_forward(centred, eps, x, scale):
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, -1, keepdims=True) if centred else jnp.zeros(())
    y = y - mean
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps)
    return y * factor * scale, (x, mean, factor, scale)


def _scaled_backward(centred, eps, saved, d_y):
    x, mean, factor, scale = saved
    y = (x.astype(jnp.float32) - mean) * factor
    share = d_y * y
    d_x = d_y * scale - y * _mean(share, scale)
    if centred:
        d_x = d_x - _mean(d_y, scale)
    return (d_x * factor).astype(x.dtype), share.sum(range(x.ndim - 1))


def _mean(x, weights):
    """Mean over the last dim of x times weights."""
    return jnp.dot(x, weights / weights.size, precision="highest")[..., None]


_scaled.defvjp(_scaled_forward, _scaled_backward)
