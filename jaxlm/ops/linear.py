"""The linear layer."""

from __future__ import annotations

import math

from jaxtyping import Array, Float


def linear(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None = None,
    *,
    dims: int = 1,
) -> Float[Array, "..."]:
    """Sums x times kernel over the last `dims` dims of x and the first of kernel, and adds the bias; in the dtype of x.

    It is a product of two matrices: with more dims, XLA for CPUs takes up to 1.3 times as long for the gradients.
    """
    width = math.prod(kernel.shape[:dims])
    y = x.reshape(-1, width) @ kernel.reshape(width, -1).astype(x.dtype)
    if bias is not None:
        y = y + bias.reshape(-1).astype(x.dtype)
    return y.reshape(*x.shape[: x.ndim - dims], *kernel.shape[dims:])
