"""The linear layer.

Letters: R dims of rows, I input width, O output width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
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
    y = _product(x.reshape(-1, width), kernel.reshape(width, -1).astype(x.dtype))
    if bias is not None:
        y = y + bias.reshape(-1).astype(x.dtype)
    return y.reshape(*x.shape[: x.ndim - dims], *kernel.shape[dims:])


@jax.custom_vjp
def _product(x, kernel):
    return x @ kernel


def _product_backward(saved, d_y):
    x, kernel = saved
    return d_y @ kernel.T, summed_over_rows(x, d_y)


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


def summed_over_rows(
    x: Float[Array, "*R I"], d_y: Float[Array, "*R O"], dtype: jnp.dtype | None = None
) -> Float[Array, "I O"]:
    """x^T d_y, the gradient of a kernel; in `dtype`, else in that of the arguments.

    XLA for CPUs has two libraries for products, and gives this one, whose rows are summed over, to the slower of them.
    The narrower argument is therefore turned round first, behind a barrier that keeps XLA from undoing it: whole steps
    become up to 1.07 times as fast. For equal widths the turning costs what it saves.
    """
    x, d_y = (y.reshape(-1, y.shape[-1]) for y in (x, d_y))
    turned = x.T
    if jax.default_backend() == "cpu":
        if x.shape[1] > d_y.shape[1]:
            return jax.lax.optimization_barrier(summed_over_rows(d_y, x, dtype)).T
        if x.shape[1] < d_y.shape[1]:
            turned = jax.lax.optimization_barrier(turned)
    return jnp.matmul(turned, d_y, preferred_element_type=dtype)
