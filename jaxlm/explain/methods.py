"""The methods that give each token of a text a number, by name, for every kind of model.

Letters: L layers, B rows, T positions, S positions of a source.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.explain import flow, gradients, reading, removal
from jaxlm.explain.flow import Maps
from jaxlm.explain.gradients import Inputs, Score
from jaxlm.explain.reading import Reading, Rows
from jaxlm.nn.layer_scan import layers_in_order
from jaxlm.nn.layers import with_adapter
from jaxlm.nn.tap import Edit
from jaxlm.ops.linear import merged


class Found(NamedTuple):
    """Attributions of each input's tokens [B, T], and how far they miss what they should add up to."""

    attributions: Inputs
    # None: the method does not promise a sum
    error: Float[Array, " B"] | None = None


class Setting(NamedTuple):
    """What a method is given."""

    reading: Reading
    params: Any
    rows: Rows
    # embeddings of the tokens, and of an absent one
    x: Inputs
    nothing: Inputs
    # points of integrated gradients
    steps: int

    @property
    def score(self) -> Score:
        """The score of the answer as a function of embeddings."""

        def score(x: Inputs) -> Float[Array, " B"]:
            logits, _ = reading.outputs(self.reading, self.params, self.rows, x)
            return reading.score(self.reading, logits, self.rows)

        return score

    def look(
        self, capture: tuple[str, ...], edits: dict[str, Edit] | None = None
    ) -> tuple[Float[Array, " B"], dict[str, Array]]:
        """The scores, and captured values."""
        logits, seen = reading.outputs(
            self.reading, self.params, self.rows, capture=capture, edits=edits
        )
        return reading.score(self.reading, logits, self.rows), seen

    def places(self, name: str) -> Any:
        """The names of a place within the text, from the source and within the source: `Maps` of names."""
        here, maps = self.reading.stack, cast(Any, Maps)
        if not self.reading.has_source:
            return maps(here + name)
        return maps(f"{here}{name}", f"{here}cross_{name}", f"encoder.{name}")

    def read(self, maps: Maps) -> Found:
        """What the position that the answer is read from has of each token, when the layers are multiplied."""
        own, source = flow.flow(maps)
        return self.at_answer(own, source)

    def at_answer(self, own: Array, source: Array | None) -> Found:
        """The row of a matrix [B, T, T] and of one [B, T, S] that belongs to the answer."""
        weights = self.rows.read_at
        row = lambda m: jnp.einsum("BTS,BT->BS", m, weights)
        if source is None:
            return Found({"tokens": row(own)})
        return Found({"tokens": row(source), "decoder_tokens": row(own)})


def _map(function: Callable[..., Any], *maps: Any) -> Any:
    """`Maps` with the function of each of the three parts that are there."""
    parts = [None if part[0] is None else function(*part) for part in zip(*maps)]
    return cast(Any, Maps)(*parts)


def _attention(setting: Setting) -> Maps:
    """Weights of all layers and heads [L, B, N, T, S]."""
    names = setting.places("attention")
    _, seen = setting.look(tuple(name for name in names if name is not None))
    return _map(lambda name: seen[name], names)


def _mean_over_heads(setting: Setting) -> Maps:
    return _map(lambda a: a.mean(2), _attention(setting))


def attention(setting: Setting) -> Found:
    """The weights of the last layer, the mean of its heads, at the position that the answer is read from."""
    maps = _mean_over_heads(setting)
    return setting.at_answer(maps.own[-1], None if maps.cross is None else maps.cross[-1])


def rollout(setting: Setting) -> Found:
    """See `flow.rollout`."""
    return setting.read(flow.rollout(_mean_over_heads(setting)))


def value_norms(setting: Setting) -> Found:
    """See `flow.norms`: those of the last layer, at the position that the answer is read from."""
    weights, values = setting.places("attention"), setting.places("values")
    _, seen = setting.look(tuple(n for n in (*weights[:2], *values[:2]) if n is not None))
    blocks = setting.params["backbone"]
    last = layers_in_order(blocks.get(setting.reading.stack.strip("."), blocks)["stack"])[-1]
    parts = zip(weights[:2], values[:2], ("attn", "cross_attn"))
    found = [
        flow.norms(seen[w][-1], seen[v][-1], merged(with_adapter(last[part], "out")))
        for w, v, part in parts
        if w is not None
    ]
    return setting.at_answer(found[0], found[1] if len(found) > 1 else None)


def _given(values: Float[Array, "L ..."], x: Array, layer: int) -> Array:
    """The edit that puts given values into every layer."""
    return values[layer]


def attention_x_gradient(setting: Setting) -> Found:
    """See `flow.relevance`."""
    names = setting.places("attention")
    weights = _attention(setting)

    def score(weights: Any) -> Array:
        given = {name: a for name, a in zip(names, weights) if name is not None}
        edits: dict[str, Edit] = {n: functools.partial(_given, a) for n, a in given.items()}
        return setting.look((), edits)[0].sum()

    slopes = jax.grad(score)(weights)
    weighted = _map(lambda a, g: jnp.maximum(a * g, 0.0).mean(2), weights, slopes)
    return setting.read(flow.relevance(weighted))


def value_zeroing(setting: Setting) -> Found:
    """See `removal.value_zeroing`; the matrices of the layers are multiplied."""
    values = setting.places("values")
    before, after = setting.places("residual_before"), setting.places("residual_after")
    # what cross-attention changes is compared in the states that leave the layer, too
    before, after = (m._replace(cross=m.cross and m.own) for m in (before, after))
    _, plain = setting.look(tuple(dict.fromkeys(n for n in (*before, *after) if n is not None)))

    def changes(value: str, before: str, after: str) -> Float[Array, "L B T S"]:
        def without(key: Array) -> Array:
            def zero(x: Array, layer: int) -> Array:
                return jnp.where((jnp.arange(x.shape[1]) == key)[:, None, None], 0.0, x)

            # each layer has its usual input, so that one pass gives the change in every layer by itself
            edits: dict[str, Edit] = {
                value: zero,
                before: functools.partial(_given, plain[before]),
            }
            return setting.look((after,), edits)[1][after]

        is_target = setting.reading.has_source and value.startswith("decoder.values")
        keys = setting.rows.inputs["decoder_tokens" if is_target else "tokens"].shape[1]
        together = setting.reading.together
        return removal.value_zeroing(without, plain[after], keys, together=together)

    return setting.read(flow.normalized(_map(changes, values, before, after)))


def saliency(setting: Setting) -> Found:
    """See `gradients.saliency`."""
    return Found(gradients.saliency(setting.score, setting.x))


def input_x_gradient(setting: Setting) -> Found:
    """See `gradients.input_x_gradient`."""
    return Found(gradients.input_x_gradient(setting.score, setting.x))


def integrated_gradients(setting: Setting) -> Found:
    """See `gradients.integrated_gradients`; the baseline has only the control tokens."""
    baseline = reading.baseline(setting.x, setting.nothing, setting.rows)
    together = setting.reading.together
    return Found(
        *gradients.integrated_gradients(
            setting.score, setting.x, baseline, setting.steps, together=together
        )
    )


def occlusion(setting: Setting) -> Found:
    """See `removal.occlusion`."""
    together = setting.reading.together
    return Found(removal.occlusion(setting.score, setting.x, setting.nothing, together=together))


METHODS: dict[str, Callable[[Setting], Found]] = {
    "integrated_gradients": integrated_gradients,
    "input_x_gradient": input_x_gradient,
    "saliency": saliency,
    "occlusion": occlusion,
    "attention": attention,
    "rollout": rollout,
    "value_norms": value_norms,
    "attention_x_gradient": attention_x_gradient,
    "value_zeroing": value_zeroing,
}


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="steps")
def attribute(
    method: str, read: Reading, params: Any, rows: Rows, *, steps: int = gradients.STEPS
) -> Found:
    """The attributions of a method for the tokens of each row; those of control tokens and padding are 0.

    Args:
        method: a key of `METHODS`.
        read: the model and its kind of answer.
        params: its parameters.
        rows: texts, answers.
        steps: points of integrated gradients.
    """
    x, nothing = reading.embed(read, params, rows), reading.absent(read, params, rows)
    found = METHODS[method](Setting(read, params, rows, x, nothing, steps))
    kept = {name: jnp.where(rows.free[name], a, 0.0) for name, a in found.attributions.items()}
    return Found(kept, found.error)
