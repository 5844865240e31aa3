"""The linear layer."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops import cpu, target


class LowRank(NamedTuple):
    """A kernel with an adapter (LoRA, Hu et al. 2021, 2106.09685, section 4.1): kernel + scale * a b."""

    kernel: Float[Array, "..."]
    # [inputs, R] and [R, outputs], each with the dims that the kernel has
    a: Float[Array, "..."]
    b: Float[Array, "..."]
    scale: Float[Array, "..."]

    def merged(self) -> Float[Array, "..."]:
        """The kernel with the product of the adapter added; there may be stacked dims in front, of scale fewer."""
        k, a, b = self.kernel, self.a, self.b
        lead = k.shape[: a.ndim + b.ndim - k.ndim - 2]
        product = a.reshape(*lead, -1, a.shape[-1]) @ b.reshape(*lead, a.shape[-1], -1)
        scale = self.scale.reshape(*self.scale.shape, *[1] * (product.ndim - self.scale.ndim))
        return k + (scale * product).reshape(k.shape).astype(k.dtype)


def merged(kernel: Float[Array, "..."] | LowRank) -> Float[Array, "..."]:
    """The kernel as one array."""
    return kernel.merged() if isinstance(kernel, LowRank) else kernel


def linear(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."] | LowRank,
    bias: Float[Array, "..."] | None = None,
    *,
    dims: int = 1,
    precision: jax.lax.Precision | None = None,
) -> Float[Array, "..."]:
    """Contracts the last `dims` dims of x with the first dims of kernel and adds the bias, in the dtype of x.

    `precision` is that of a product of float32 arrays on accelerators, whose default is less; CPUs know one only.
    """
    if isinstance(kernel, LowRank):
        # the product of the adapter is never formed: neither it nor its gradient has the size of the kernel
        added = linear(linear(x, kernel.a, dims=dims), kernel.b)
        return linear(x, kernel.kernel, bias, dims=dims) + added * kernel.scale.astype(x.dtype)
    if target.uses_cpu_ops():
        return cpu.linear(x, kernel, bias, dims)
    y = jnp.tensordot(x, kernel.astype(x.dtype), dims, precision=precision)
    return y if bias is None else y + bias.astype(x.dtype)
