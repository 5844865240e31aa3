"""Normalisation over the last dim, in float32 whatever the input's dtype."""

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
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, -1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps) * scale
    return (y if bias is None else y + bias).astype(x.dtype)


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, " D"], *, eps: float
) -> Float[Array, "... D"]:
    """Root mean square normalisation (Zhang and Sennrich 2019, 1910.07467, equation 4)."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps)
    return (y * scale).astype(x.dtype)
