"""Products with 8-bit operands, for training: int8 or float8.

Both operands are quantised anew in each step, each vector along the contracted dims with a scale of its own. The
forward product and the gradient of the input have 8-bit operands; the gradient of the kernel, which is sensitive to
noise, keeps the dtype of the input (SwitchBack, Wortsman et al. 2023, 2304.13013, algorithm 1, with a scale for each
vector of the kernel too). Float8 is e4m3, for gradients e5m2 (Micikevicius et al. 2022, 2209.05433).
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops.linear import LowRank
from jaxlm.ops.linear import linear as full_linear

Kind = Literal["int8", "fp8"]


def linear(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."] | LowRank,
    bias: Float[Array, "..."] | None = None,
    *,
    dims: int = 1,
    kind: Kind,
) -> Float[Array, "..."]:
    """As `ops.linear.linear`, with 8-bit operands; the products of an adapter keep their dtype."""
    if isinstance(kernel, LowRank):
        added = full_linear(full_linear(x, kernel.a, dims=dims), kernel.b)
        own = linear(x, kernel.kernel, bias, dims=dims, kind=kind)
        return own + added * kernel.scale.astype(x.dtype)
    y = _product(x, kernel, dims, kind)
    return y if bias is None else y + bias.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x: Array, kernel: Array, dims: int, kind: Kind) -> Array:
    """[..., D] and [D, F] -> [..., F], where D are `dims` dims, and F all others of the kernel."""
    dtype = jnp.int8 if kind == "int8" else jnp.float8_e4m3fn
    own = tuple(range(x.ndim - dims, x.ndim))
    return _scaled_product(x, kernel, own, tuple(range(dims)), dtype, dtype)


def _forward(x: Array, kernel: Array, dims: int, kind: Kind) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel, dims, kind), (x, kernel)


def _backward(
    dims: int, kind: Kind, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    outputs = kernel.ndim - dims
    of_gradient, of_kernel = (
        (jnp.int8, jnp.int8) if kind == "int8" else (jnp.float8_e5m2, jnp.float8_e4m3fn)
    )
    own = tuple(range(gradient.ndim - outputs, gradient.ndim))
    others = tuple(range(dims, kernel.ndim))
    d_x = _scaled_product(gradient, kernel, own, others, of_gradient, of_kernel)
    rows = tuple(range(x.ndim - dims))
    d_kernel = jax.lax.dot_general(
        x, gradient, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return d_x, d_kernel.astype(kernel.dtype)


_product.defvjp(_forward, _backward)


def _scaled_product(
    a: Array, b: Array, a_dims: tuple[int, ...], b_dims: tuple[int, ...], a_dtype, b_dtype
) -> Array:
    """Contracts these dims of two quantised arrays; the remaining dims of a, then those of b, in the dtype of a."""
    a8, a_scale = quantise(a, a_dims, a_dtype)
    b8, b_scale = quantise(b, b_dims, b_dtype)
    total = jnp.int32 if a_dtype == jnp.int8 else jnp.float32
    y = jax.lax.dot_general(a8, b8, ((a_dims, b_dims), ((), ())), preferred_element_type=total)
    a_scale = a_scale.reshape(a_scale.shape + (1,) * (y.ndim - a_scale.ndim))
    return (y.astype(jnp.float32) * a_scale * b_scale).astype(a.dtype)


def quantise(x: Array, dims: tuple[int, ...], dtype) -> tuple[Array, Array]:
    """x / scale in 8 bits, and the scale, float32 without `dims`, over which the largest magnitude becomes the
    dtype's largest."""
    x = x.astype(jnp.float32)
    most = 127.0 if dtype == jnp.int8 else float(jnp.finfo(dtype).max)
    largest = jnp.abs(x).max(dims, keepdims=True)
    scale = jnp.where(largest > 0, largest / most, 1.0)
    scaled = x / scale
    scaled = jnp.round(scaled) if dtype == jnp.int8 else scaled
    return scaled.astype(dtype), scale.squeeze(dims)
