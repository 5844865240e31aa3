"""Normalization over the last dim, computed in float32 for every input dtype.

The plain formulas use `jax.checkpoint`: only the input is saved and the backward pass recomputes the rest at little
cost. Automatic differentiation would save two or three float32 arrays of the input's size.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops import cpu, target


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None = None,
    *,
    eps: float,
) -> Float[Array, "... D"]:
    """Layer normalization (Ba et al. 2016, 1607.06450, equation 4)."""
    if target.uses_cpu_ops():
        y = cpu.normalize(True, eps, x, scale)
        return (y if bias is None else y + bias).astype(x.dtype)
    return _layer_norm(x, scale, bias, eps)


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, " D"], *, eps: float
) -> Float[Array, "... D"]:
    """Root mean square normalization (Zhang and Sennrich 2019, 1910.07467, equation 4)."""
    if target.uses_cpu_ops():
        return cpu.normalize(False, eps, x, scale).astype(x.dtype)
    return _rms_norm(x, scale, eps)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=3)
def _layer_norm(x, scale, bias, eps):
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, -1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps) * scale
    return (y if bias is None else y + bias).astype(x.dtype)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def _rms_norm(x, scale, eps):
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps) * scale
    return y.astype(x.dtype)
