"""Mixture of experts: routing, the products of each expert with its tokens, and load balancing.

Letters: M tokens, E experts, C experts of a token, D model width, F MLP width.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from jaxlm.ops.grouped import grouped_product
from jaxlm.ops.linear import linear

# the weight of the loss that is being differentiated, see `loss_weight`
_loss_weight: contextvars.ContextVar[Array | None] = contextvars.ContextVar(
    "loss_weight", default=None
)


def router_logits(
    x: Float[Array, "M D"], router: Float[Array, "D E"], bias: Float[Array, " E"] | None = None
) -> Float[Array, "M E"]:
    """The score of each expert for each token, in float32 on every backend.

    Rounding must not change which expert wins a near tie (Fedus et al. 2021, 2101.03961, section 2.4). TPUs multiply
    float32 arrays in bfloat16 and GPUs in TF32 unless they are told otherwise.
    """
    return linear(x.astype(jnp.float32), router, bias, precision=jax.lax.Precision.HIGHEST)


def route(
    logits: Float[Array, "M E"],
    experts_per_token: int,
    weights: Literal["selected", "all"] = "selected",
) -> tuple[Float[Array, "M C"], Int[Array, "M C"]]:
    """The most probable experts of each token and their weights.

    The weights are probabilities among the selected experts (Mixtral, 2401.04088, section 2.1), or among all of them.
    The weight of a single selected expert is 1, whatever the router says, so that the router would never learn: its
    gradient is that of the probability among all experts, by which Switch multiplies (2101.03961, equation 2), as a
    straight-through estimate (Bengio et al. 2013, 1308.3432).
    """
    logits = logits.astype(jnp.float32)
    best, experts = jax.lax.top_k(logits, experts_per_token)
    if weights == "all" or experts_per_token == 1:
        probability = jnp.exp(best - jax.nn.logsumexp(logits, -1, keepdims=True))
        if weights == "all":
            return probability, experts
        return 1 + (probability - jax.lax.stop_gradient(probability)), experts
    return jax.nn.softmax(best, -1), experts


def mix(
    x: Float[Array, "M D"],
    weights: Float[Array, "M C"],
    experts: Int[Array, "M C"],
    gate: Float[Array, "E D F"] | None,
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
    activation: Callable[[Array | None, Array], Array],
    *,
    biases: tuple[Array | None, Array, Array] | None = None,
    first: Int[Array, ""] | None = None,
) -> Float[Array, "M D"]:
    """The weighted sum of each token's experts, each an MLP; no token is dropped, however many go to one expert.

    Tokens are sorted by expert, so that each expert needs one matrix product over its rows (Gale et al. 2022,
    2211.15841).

    Args:
        x: states of the tokens.
        weights: of the experts of each token.
        experts: their indices.
        gate: of each expert; None: not gated.
        up: of each expert.
        down: of each expert.
        activation: is given the products with `gate`, or None, and with `up`.
        biases: of `gate`, `up` and `down`: [E, F], [E, F] and [E, D].
        first: index of the first of the E experts given here, on a device that has not all of them: all others add 0.
    """
    (tokens, chosen), count = experts.shape, up.shape[0]
    of_choice = experts.reshape(-1)
    if first is not None:
        own = of_choice - first
        of_choice = jnp.where((own >= 0) & (own < count), own, count)
    order = jnp.argsort(of_choice, stable=True)
    sizes = jnp.bincount(of_choice, length=count)
    if first is not None:
        # a token selects an expert once; what other devices compute is sorted to the end
        order = order[: tokens * min(chosen, count)]
    rows = x[order // chosen]
    of_row = of_choice[order]
    is_own = None if first is None else (of_row < count)[:, None]
    if is_own is not None:
        rows = jnp.where(is_own, rows, 0)

    def product(rows: Array, kernel: Array, bias: Array | None, name: str) -> Array:
        y = grouped_product(rows, kernel, sizes)
        y = y if bias is None else y + bias.astype(x.dtype)[of_row]
        # what rematerialization may keep
        return checkpoint_name(y, name)

    gate_bias, up_bias, down_bias = biases or (None, None, None)
    gated = None if gate is None else product(rows, gate, gate_bias, "gate")
    y = product(activation(gated, product(rows, up, up_bias, "up")), down, down_bias, "down")
    if is_own is not None:
        # kernels need not write the rows behind the last group
        y = jnp.where(is_own, y, 0)
    # back to the order of the tokens
    y = jnp.zeros((tokens * chosen, y.shape[1]), y.dtype).at[order].set(y)
    y = y.reshape(tokens, chosen, -1)
    return jnp.einsum("MCD,MC->MD", y, weights.astype(x.dtype))


def load_balance(
    logits: Float[Array, "M E"],
    experts: Int[Array, "M C"],
    real: Bool[Array, " M"] | None = None,
) -> Float[Array, ""]:
    """Number of experts times the sum over experts of the fraction of tokens routed to it times its mean probability.

    C if the load is balanced, at most E otherwise (Fedus et al. 2021, 2101.03961, equation 4, for C choices). Tokens
    that are not `real` (padding) do not count; None: all are.
    """
    count = logits.shape[-1]
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), -1)
    if real is None:
        fraction = jnp.bincount(experts.reshape(-1), length=count) / logits.shape[0]
        return count * (fraction * probabilities.mean(0)).sum()
    each = real.astype(jnp.float32)
    tokens = jnp.maximum(each.sum(), 1)
    chosen = jnp.repeat(each, experts.shape[1])
    fraction = jnp.bincount(experts.reshape(-1), weights=chosen, length=count) / tokens
    return count * (fraction * (probabilities * each[:, None]).sum(0) / tokens).sum()


@contextlib.contextmanager
def loss_weight(weight: Float[Array, ""]) -> Iterator[None]:
    """A context in which the losses that layers add are multiplied by the weight of the loss (`tasks.Loss.weight`).

    The training step divides gradients by this weight: of tokens, predicted tokens or rows, as the task defines it. A
    layer does not know it, and the loss that it adds has to have the same size in every task.
    """
    token = _loss_weight.set(weight)
    try:
        yield
    finally:
        _loss_weight.reset(token)


def loss_weight_of_part(parts: int) -> contextlib.AbstractContextManager:
    """A context in which one of several equal parts of the rows passes the layers, within `loss_weight`."""
    weight = _loss_weight.get()
    return contextlib.nullcontext() if weight is None else loss_weight(weight / parts)


def added_weight(tokens: int, real: Bool[Array, " M"] | None = None) -> Float[Array, ""]:
    """The weight of a loss that a layer adds: that of `loss_weight`, without it the number of real tokens."""
    weight = _loss_weight.get()
    if weight is not None:
        return weight
    return jnp.float32(tokens) if real is None else real.sum(dtype=jnp.float32)


@jax.custom_vjp
def with_loss(y: Array, loss: Float[Array, ""]) -> Array:
    """Returns y; the backward pass adds the gradient of `loss` to that of the model's loss.

    A layer can thus have an auxiliary loss that the modules above it need not return. Reverse mode only: `jax.jvp` of
    a model with experts raises, `jax.jvp` of its gradient works.
    """
    return y


def _with_loss_forward(y, loss):
    return y, None


def _with_loss_backward(_, d_y):
    return d_y, jnp.ones(())


with_loss.defvjp(_with_loss_forward, _with_loss_backward)
