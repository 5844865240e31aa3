"""Element-wise activations. Only the input is saved for the backward pass, and the rest is recomputed; with plain
automatic differentiation, gelu saves four to six arrays of the MLP's width."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxlm.ops import cpu, target


def _recompute(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), recomputed in the backward pass."""
    if target.uses_cpu_ops():
        return cpu.elementwise(function, x)
    return jax.checkpoint(function, prevent_cse=False)(x)


def clamped_swiglu(gate: Array, up: Array, *, limit: float, gain: float) -> Array:
    """A swiglu whose inputs are clamped, and whose second factor is increased by 1 (gpt-oss, OpenAI 2025)."""

    def function(gate):
        gate = jnp.minimum(gate, limit)
        return gate * jax.nn.sigmoid(gain * gate)

    return _recompute(function, gate) * (jnp.clip(up, -limit, limit) + 1)


# gelu: x times the normal distribution function; gelu_tanh: its approximation (Hendrycks and Gimpel 2016, 1606.08415)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(_recompute, functools.partial(jax.nn.gelu, approximate=False)),
    "gelu_tanh": functools.partial(_recompute, functools.partial(jax.nn.gelu, approximate=True)),
    "relu": jax.nn.relu,
    "silu": functools.partial(_recompute, jax.nn.silu),
}
