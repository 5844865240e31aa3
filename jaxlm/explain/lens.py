"""What a model would answer if it stopped after each layer: the logit lens and the tuned lens.

Letters: L layers, B rows, T positions, D model width, C answers, M states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxlm.explain import reading
from jaxlm.explain.reading import Reading, Rows


class Translator(NamedTuple):
    """An affine map of the states of each layer towards those of the last; zeros: no change."""

    weight: Float[Array, "L D D"]
    bias: Float[Array, "L D"]


def states(read: Reading, params: Any, rows: Rows) -> Float[Array, "L1 B T D"]:
    """The residual stream before the first layer and after each of the L layers."""
    names = (f"{read.stack}residual_before", f"{read.stack}residual_after")
    _, seen = reading.outputs(read, params, rows, capture=names)
    return jnp.concatenate([seen[names[0]][:1], seen[names[1]]])


def answers(
    read: Reading, params: Any, rows: Rows, state: Float[Array, "B T D"]
) -> Float[Array, "B C"]:
    """The logits that the model's own head gives of a residual stream in place of the last layer's."""
    last = read.num_layers - 1
    # nothing depends on the layers any more, and XLA leaves them out
    edits = {f"{read.stack}residual_after": lambda x, layer: state if layer == last else x}
    return reading.outputs(read, params, rows, edits=edits)[0]


@functools.partial(jax.jit, static_argnums=0)
def lens(
    read: Reading, params: Any, rows: Rows, translator: Translator | None = None
) -> Float[Array, "L1 B C"]:
    """Logits from before the first layer and after each layer: the last ones are the model's.

    Without a translator it is the logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens"): final norm and
    head of the model, applied to h_l; it misleads where a model turns its basis from layer to layer. With one it is the
    tuned lens (Belrose et al. 2023, 2303.08112): h_l + A_l h_l + b_l in place of h_l.
    """
    found = _states(read, params, rows, translator)
    return jax.lax.map(lambda state: answers(read, params, rows, state), found)


@functools.partial(jax.jit, static_argnums=(0, 3))
def lens_top(
    read: Reading, params: Any, rows: Rows, count: int, translator: Translator | None = None
) -> tuple[Int[Array, "L1 B K"], Float[Array, "L1 B K"], Int[Array, "L1 B"]]:
    """As `lens`: the most probable answers, their probabilities, and the rank of the row's own answer from 0.

    The logits of one layer at a time are in memory.
    """

    def of(state: Array) -> tuple[Array, Array, Array]:
        logits = answers(read, params, rows, state)
        p = reading.probabilities(read, logits)
        best, index = jax.lax.top_k(p, min(count, p.shape[-1]))
        own = jnp.take_along_axis(logits, rows.answer[:, None], axis=1)
        return index, best, (logits > own).sum(-1)

    return jax.lax.map(of, _states(read, params, rows, translator))


def _states(read: Reading, params: Any, rows: Rows, translator: Translator | None) -> Array:
    found = states(read, params, rows)
    if translator is None:
        return found
    return jnp.concatenate([translate(translator, found[:-1]), found[-1:]])


def translate(translator: Translator, found: Float[Array, "L ... D"]) -> Float[Array, "L ... D"]:
    """h + A h + b of the states of each layer.

    Raises:
        ValueError: the translator is of another number of layers or another width.
    """
    weight, bias = translator
    layers, width = len(found), found.shape[-1]
    # shapes that differ could be broadcast
    if weight.shape != (layers, width, width) or bias.shape != (layers, width):
        raise ValueError(
            f"this translator has shapes {weight.shape} and {bias.shape}, and the model {layers} layers of width "
            f"{width}: it was trained for another one"
        )
    moved = jnp.einsum("L...D,LDE->L...E", found, weight)
    return found + moved + bias.reshape(len(bias), *[1] * (found.ndim - 2), -1)


def head(read: Reading, params: Any) -> Callable[[Float[Array, "M D"]], Float[Array, "M C"]]:
    """The model's head as a function of states by themselves, for `tune`.

    Raises:
        ValueError: the model writes a target from a source: its states are not there without one.
    """
    if read.has_source:
        raise ValueError("the tuned lens is for models of one text, not for an encoder-decoder")

    def logits(state: Float[Array, "M D"]) -> Float[Array, "M C"]:
        # texts of one token, whose last state is replaced
        nothing = jnp.zeros(len(state), jnp.int32)
        ones = jnp.ones((len(state), 1))
        inputs = {"tokens": nothing[:, None], "segment_ids": ones.astype(jnp.int32)}
        rows = Rows(inputs, {}, ones, nothing, nothing)
        return answers(read, params, rows, state[:, None])

    return logits


class Tuned(NamedTuple):
    """A trained translator."""

    translator: Translator
    # KL divergence in nats of each layer's answers from the last layer's, at first (logit lens) and at the end [L]
    before: Float[Array, " L"]
    after: Float[Array, " L"]


def tune(
    head: Callable[[Float[Array, "M D"]], Float[Array, "M C"]],
    found: Float[Array, "L1 M D"],
    *,
    steps: int = 200,
    learning_rate: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
) -> Tuned:
    """Trains a translator: the mean over states of KL(last layer || translated layer) falls (Belrose et al.
    2023), by Adam from the identity.

    Args:
        head: states of the last layer -> logits, such as the function `head` gives.
        found: of many tokens, as of `states`, without padding and control tokens.
        steps: of training.
        learning_rate: of Adam; it falls linearly to 0.
        batch: states a step, drawn at random.
        seed: of the draws.

    Raises:
        ValueError: there are no states.
    """
    if found.ndim != 3 or len(found) < 2 or not found.shape[1]:
        raise ValueError(
            f"states of shape {found.shape}: [layers + 1, states, width] with at least a layer and a state is needed"
        )
    layers, count, width = len(found) - 1, found.shape[1], found.shape[2]
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, steps))

    def divergence(translator: Translator, some: Float[Array, "L1 M D"]) -> Float[Array, " L"]:
        target = jax.nn.log_softmax(head(some[-1]), axis=-1)

        def of_layer(state: Array) -> Array:
            own = jax.nn.log_softmax(head(state), axis=-1)
            return (jnp.exp(target) * (target - own)).sum(-1).mean()

        return jax.lax.map(jax.checkpoint(of_layer), translate(translator, some[:-1]))

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        translator, state = carry
        some = found[:, jax.random.randint(key, (min(batch, count),), 0, count)]
        slopes = jax.grad(lambda t: divergence(t, some).sum())(translator)
        change, state = optimizer.update(slopes, state)
        return (optax.apply_updates(translator, change), state), None

    @jax.jit
    def run() -> Tuned:
        start = Translator(jnp.zeros((layers, width, width)), jnp.zeros((layers, width)))
        keys = jax.random.split(jax.random.key(seed), steps)
        (trained, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
        some = found[:, : 4 * batch]
        return Tuned(trained, divergence(start, some), divergence(trained, some))

    return run()
