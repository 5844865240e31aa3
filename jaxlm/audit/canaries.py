"""Canaries: texts with random parts that are planted in the training data, and how far a model has learnt them.

Carlini et al. 2019, "The Secret Sharer", 1802.08232: the exposure of a canary is log2 of the number of texts that it
could have been, minus log2 of its rank among them by the model's loss (section 4.2, definition 3). A canary that is not
remembered has a random rank, and an exposure that exceeds e with probability 2^-e.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.config import json_text
from jaxlm.config.disk import write_text


@dataclasses.dataclass(frozen=True)
class Canaries:
    """A template with places for random values, and the canaries that were made of it."""

    # text with {} for each place
    template: str
    # what a place may hold
    values: tuple[str, ...]
    # of each canary: its values, one a place, and how often it is planted
    chosen: tuple[tuple[str, ...], ...]
    repeats: tuple[int, ...]

    def __post_init__(self):
        places = self.template.count("{}")
        if not places:
            raise ValueError(f"the template {self.template!r} has no place {{}} for a random value")
        if len(set(self.values)) < max(2, len(self.values)):
            raise ValueError(
                f"values {', '.join(self.values)}: a place needs at least two values, all of them different"
            )
        if len(self.chosen) != len(self.repeats) or not self.chosen:
            raise ValueError("canaries: one number of repetitions for each of at least one canary")
        for each in self.chosen:
            if len(each) != places or not set(each) <= set(self.values):
                raise ValueError(
                    f"canary {each}: not {places} of the values {', '.join(self.values)}"
                )

    @property
    def space(self) -> int:
        """The number of texts that a canary could have been."""
        return len(self.values) ** self.template.count("{}")

    def text(self, values: Sequence[str]) -> str:
        """The template with these values."""
        parts = self.template.split("{}")
        return "".join(itertools.chain(*zip(parts, values), parts[-1:]))

    @property
    def texts(self) -> list[str]:
        """The canaries."""
        return [self.text(values) for values in self.chosen]

    def others(self, count: int, seed: int) -> list[str]:
        """All texts that a canary could have been, or a random sample of `count` of them; canaries are among them or
        not as chance has it."""
        places = self.template.count("{}")
        if self.space <= count:
            return [self.text(x) for x in itertools.product(self.values, repeat=places)]
        drawn = np.random.default_rng(seed).integers(len(self.values), size=(count, places))
        return [self.text([self.values[i] for i in row]) for row in drawn]

    def save(self, path: pathlib.Path) -> None:
        """Writes them as JSON."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n")


def make(template: str, values: Sequence[str], repeats: Sequence[int], seed: int) -> Canaries:
    """Canaries with random values, one for each number of repetitions.

    Raises:
        ValueError: the template has no places, or there are not so many different canaries.
    """
    rng = np.random.default_rng(seed)
    places = template.count("{}")
    if places and len(repeats) > len(set(values)) ** places:
        raise ValueError(f"{template!r} makes less than {len(repeats)} different canaries")
    chosen: dict[tuple[str, ...], None] = {}
    while places and len(chosen) < len(repeats):
        chosen[tuple(values[i] for i in rng.integers(len(values), size=places))] = None
    return Canaries(template, tuple(values), tuple(chosen), tuple(repeats))


def load(path: pathlib.Path) -> Canaries:
    """Canaries that `save` wrote.

    Raises:
        ValueError: it is no such file.
    """
    found = json_text.read_object(path)
    parts = [json_text.member(found, name, list, path) for name in ("values", "chosen", "repeats")]
    template = json_text.member(found, "template", str, path)
    values, chosen, repeats = parts
    if not (
        _are(values, str)
        and all(isinstance(x, list) and _are(x, str) for x in chosen)
        and _are(repeats, int)
    ):
        raise ValueError(
            f"{path}: not a file of canaries, as `jaxlm audit canaries` writes it: values and chosen have to be texts, "
            "repeats whole numbers"
        )
    try:
        return Canaries(template, tuple(values), tuple(map(tuple, chosen)), tuple(repeats))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def _are(values: list[Any], kind: type) -> bool:
    return all(type(value) is kind for value in values)


def plant(lines: Sequence[str], canaries: Canaries, seed: int) -> list[str]:
    """The lines of a text with the canaries among them at random places, each as often as it says."""
    rng = np.random.default_rng(seed)
    new = [t for t, n in zip(canaries.texts, canaries.repeats) for _ in range(n)]
    places = np.sort(rng.integers(len(lines) + 1, size=len(new)))
    order = rng.permutation(len(new))
    out: list[str] = []
    done = 0
    for place, index in zip(places, order):
        out += lines[done:place]
        out.append(new[index])
        done = place
    return [*out, *lines[done:]]


def exposure(loss: float, others: np.ndarray, space: int) -> float:
    """The exposure of a canary in bits.

    Args:
        loss: of the canary.
        others: losses of all texts that it could have been, itself included [space], or of a random sample [m]; the
            rank of a canary below all of a sample counts as the first of m + 1.
        space: the number of texts that it could have been.
    """
    lower = int((others < loss).sum())
    if len(others) == space:
        return math.log2(space) - math.log2(lower + 1)
    return math.log2(len(others) + 1) - math.log2(lower + 1)
