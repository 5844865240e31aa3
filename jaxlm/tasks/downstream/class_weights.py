"""The setting `class_weights`: weights of the classes in the loss of training."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from jaxlm.tasks.downstream import texts


def resolve(
    given: tuple[str, ...], labels: tuple[str, ...], examples: Sequence[str | None]
) -> tuple[str, ...]:
    """The setting `class_weights` with "balanced" replaced by weights n / (C n_c), as scikit-learn defines it."""
    if given != ("balanced",):
        parse(given, labels)
        return given
    count = collections.Counter(label for label in examples if label in labels)
    missing = [label for label in labels if not count[label]]
    if missing:
        raise ValueError(
            f"task.class_weights=balanced: data.train has no example of {missing[0]!r}; give weights by name"
        )
    return tuple(f"{x}={count.total() / (len(labels) * count[x]):.6g}" for x in labels)


def parse(given: tuple[str, ...], labels: tuple[str, ...]) -> dict[str, float]:
    """The weights by class; raises ValueError for what is not `class=weight`."""
    weights: dict[str, float] = {}
    for entry in given:
        name, sign, number = entry.rpartition("=")
        if name in weights:
            raise ValueError(f"task.class_weights: {name!r} has two weights")
        try:
            weights[name] = float(number)
        except ValueError:
            sign = ""
        if not sign or not 0 < weights[name] < float("inf"):
            raise ValueError(
                f"task.class_weights: {entry!r} is not balanced alone, or a class and a positive weight such as spam=3"
            )
        if name not in labels:
            raise ValueError(
                f"task.class_weights: unknown class {name!r}; {texts.hint(name, labels)}"
            )
    return weights
