"""The linear layer."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops import cpu, target


def linear(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None = None,
    *,
    dims: int = 1,
) -> Float[Array, "..."]:
    """Contracts the last `dims` dims of x with the first dims of kernel and adds the bias, in the dtype of x."""
    if target.uses_cpu_ops():
        return cpu.linear(x, kernel, bias, dims)
    y = jnp.tensordot(x, kernel.astype(x.dtype), dims)
    return y if bias is None else y + bias.astype(x.dtype)
