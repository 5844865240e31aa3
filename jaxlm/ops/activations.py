"""Element-wise activations. Only the input is saved for the backward pass, and the rest is recomputed; with plain
automatic differentiation, gelu saves four to six arrays of the MLP's width."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax import Array

from jaxlm.ops import cpu, target


def _recompute(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), recomputed in the backward pass."""
    if target.uses_cpu_ops():
        return cpu.elementwise(function, x)
    return jax.checkpoint(function, prevent_cse=False)(x)


# gelu: x times the normal distribution function; gelu_tanh: its approximation (Hendrycks and Gimpel 2016, 1606.08415)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(_recompute, functools.partial(jax.nn.gelu, approximate=False)),
    "gelu_tanh": functools.partial(_recompute, functools.partial(jax.nn.gelu, approximate=True)),
    "relu": jax.nn.relu,
    "silu": functools.partial(_recompute, jax.nn.silu),
}
