"""Places inside a forward pass where values can be read and changed.

A module that is given a `Tap` passes the values of its named places through it. `models.observe` makes it
for one call and returns what it has read beside the result: from outside a pure function, under any transformation of
JAX. Without one the modules compute what they always do; there is no hook in the compiled program.

| place | values | letters |
|---|---|---|
| residual_before | residual stream that enters a layer | B T D |
| residual_middle | after self-attention was added; of a parallel block: before the MLP is added | B T D |
| residual_cross | after cross-attention was added | B T D |
| residual_after | residual stream that leaves a layer | B T D |
| attention, cross_attention | weights of the values, after the softmax | B N T S |
| values, cross_values | value of each key | B S K H |
| heads, cross_heads | weighted sum of the values, by head | B T N H |
| attention_out, cross_attention_out, mlp_out | output of a part, before a norm or scale that it has | B T D |
| mlp_hidden | hidden units of the MLP after activation and gate | B T F |

Those of an encoder-decoder begin with "encoder." or "decoder.".
Letters: B batch, T positions, S keys, D model width, N query heads, K key/value heads, H head width, F MLP width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from jaxtyping import Array

# (values of a place, index of the layer, static) -> the values to use instead, of the same shape
Edit = Callable[[Array, int], Array]


@dataclasses.dataclass(frozen=True)
class Tap:
    """Reads and changes the values of places in one forward pass."""

    # names of the places to read, and the layers in which they are read; None: all
    names: frozenset[str] = frozenset()
    layers: frozenset[int] | None = None
    edits: Mapping[str, Edit] = dataclasses.field(default_factory=dict)
    # name -> layer -> values as the model uses them: after the edit
    read: dict[str, dict[int, Array]] = dataclasses.field(default_factory=dict)
    # every place that the pass has gone through, with its layers
    places: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    # where the module is that has this tap
    prefix: str = ""
    layer: int = 0

    def within(self, prefix: str) -> Tap:
        """The tap for a part of the model, whose places begin with `prefix`."""
        return dataclasses.replace(self, prefix=self.prefix + prefix)

    def at(self, layer: int) -> Tap:
        """The tap for a layer."""
        return dataclasses.replace(self, layer=layer)

    def wants(self, name: str) -> bool:
        """Whether the values of this place are read or changed in this layer."""
        name = self.prefix + name
        self.places.setdefault(name, set()).add(self.layer)
        return name in self.edits or self._reads(name)

    def __call__(self, name: str, x: Array) -> Array:
        """The values to go on with."""
        if not self.wants(name):
            return x
        name = self.prefix + name
        if name in self.edits:
            new = self.edits[name](x, self.layer)
            shape = getattr(new, "shape", None)
            if shape != x.shape:
                raise ValueError(
                    f"the edit of {name} in layer {self.layer} made {x.shape} into "
                    f"{type(new).__name__ if shape is None else shape}"
                )
            x = new.astype(x.dtype)
        if self._reads(name):
            self.read.setdefault(name, {})[self.layer] = x
        return x

    def _reads(self, name: str) -> bool:
        return name in self.names and (self.layers is None or self.layer in self.layers)


def within(tap: Tap | None, prefix: str) -> Tap | None:
    """`tap.within(prefix)`, if there is a tap."""
    return None if tap is None else tap.within(prefix)


def passed(tap: Tap | None, name: str, x: Array) -> Array:
    """The values of a place to go on with: those given, if there is no tap."""
    return x if tap is None else tap(name, x)
