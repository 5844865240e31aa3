"""A forward pass that returns values from inside the model, or runs with some of them changed.

    logits, seen = observe(model, params, tokens, capture=("attention", "residual_after"), layers=(0, 5))
    seen["attention"]  # [2, B, N, T, S]: of the two layers

    # the same model without head 3 of layer 2
    def ablate(heads, layer):
        return heads.at[:, :, 3].set(0) if layer == 2 else heads

    logits, _ = observe(model, params, tokens, edits={"heads": ablate})

The places are those of `nn.tap`, and "logits" for the result itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxlm.nn.tap import Edit, Tap

RESULT = "logits"


def observe(
    model: nn.Module,
    params: Any,
    *args: Any,
    capture: Iterable[str] = (),
    layers: Sequence[int] | None = None,
    edits: Mapping[str, Edit] | None = None,
    **inputs: Any,
) -> tuple[Any, dict[str, Array]]:
    """The result of `model.apply`, and the captured values of each place [L, ...], L the chosen layers.

    A pure function: `capture`, `layers` and the names of `edits` are static, what the edits close over may be
    traced. Without any of them it is `model.apply`.

    Args:
        model: an encoder, a decoder or an encoder-decoder, with or without a head.
        params: its parameters.
        args: tokens, as of the model's call.
        capture: names of places, see `nn.tap`.
        layers: in which they are captured, in this order; default: all.
        edits: place -> function (values, layer) -> values, called in every layer; a captured value is the changed one.
        inputs: as of the model's call.

    Raises:
        ValueError: the model has no such place or layer, or an edit returns no array of the same shape.
    """
    if isinstance(capture, str):
        capture = (capture,)
    names, changes = dict.fromkeys(capture), dict(edits or {})
    inside = [name for name in names if name != RESULT]
    if layers is not None and (not len(layers) or len(set(layers)) < len(layers)):
        raise ValueError(f"layers={tuple(layers)}: name at least one layer, each of them once")
    if layers is not None and not inside:
        raise ValueError(
            f"layers={tuple(layers)} has no effect: no place inside the model is captured"
        )
    if not inside and not changes:
        result: Any = model.apply({"params": params}, *args, **inputs)
        return result, dict.fromkeys(names, result)
    chosen = None if layers is None else frozenset(layers)
    tap = Tap(frozenset(inside), chosen, changes)
    result = model.apply({"params": params}, *args, tap=tap, **inputs)
    for name in (*inside, *changes):
        _check(name, tap, model, layers if name in names else None)
    seen: dict[str, Any] = {RESULT: result} if RESULT in names else {}
    for name in inside:
        order = sorted(tap.read[name]) if layers is None else layers
        seen[name] = jnp.stack([tap.read[name][i] for i in order])
    return result, seen


def _check(name: str, tap: Tap, model: nn.Module, layers: Sequence[int] | None) -> None:
    """Raises ValueError if the pass did not go through a place, or not in one of the layers."""
    kind = type(model).__name__
    if name not in tap.places:
        near = difflib.get_close_matches(name, tap.places, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(tap.places))}"
        raise ValueError(f"this {kind} has no place {name!r}; {hint}")
    for layer in layers or ():
        if layer not in tap.places[name]:
            last = max(tap.places[name])
            raise ValueError(
                f"layer {layer}: this {kind} has {name} in layers 0 to {last}, and no others"
            )
