"""Element-wise activations whose backward pass keeps their input alone.

Left to automatic differentiation, gelu keeps four to six arrays of the MLP's width, a third of all that a block keeps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def elementwise(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), for a function of each number alone."""
    return function(x)


def _forward(function, x):
    return function(x), x


def _backward(function, x, d_y):
    # else XLA would take parts of the derivative from the forward pass, and keep them until here
    x, d_y = jax.lax.optimization_barrier((x, d_y))
    return (jax.jvp(function, (x,), (d_y,))[1],)


elementwise.defvjp(_forward, _backward)

# gelu: x times the normal distribution function; gelu_tanh: its approximation (Hendrycks and Gimpel 2016, 1606.08415)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(elementwise, functools.partial(jax.nn.gelu, approximate=False)),
    "gelu_tanh": functools.partial(elementwise, functools.partial(jax.nn.gelu, approximate=True)),
    "relu": jax.nn.relu,
    "silu": functools.partial(elementwise, jax.nn.silu),
}
