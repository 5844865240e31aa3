"""What is supported of the Hugging Face world, from the tables themselves; run as a program it prints Markdown."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from jaxlm.hf.families import ENCODERS, FAMILIES
from jaxlm.hf.family import Family
from jaxlm.hf.fields import Field


def markdown() -> str:
    """A table with a row for each model_type: its classes, and settings of which only some values are supported."""
    lines = [
        "| `model_type` | classes | supported only with |",
        "|---|---|---|",
        *(_row(family) for family in sorted(FAMILIES.values(), key=lambda f: f.model_type)),
    ]
    return "\n".join(lines)


def _row(family: Family) -> str:
    only = [
        f"`{name}={_values(field.only)}`"
        for name, field in family.fields.items()
        if isinstance(field, Field) and field.only and {*field.only} != {True, False}
    ]
    return f"| `{family.model_type}` | {_classes(family)} | {', '.join(only)} |"


def _classes(family: Family) -> str:
    """The classes without the beginning that they have in common: `Bert`: Model, ForMaskedLM."""
    encoder = ENCODERS.get(family.model_type)
    alone = [] if encoder is None else [encoder.base, *encoder.heads]
    names = [family.base, *family.heads, *alone]
    same = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*names))
    common = "".join(letters[0] for letters in same)
    # to the end of a word: BartForConditionalGeneration, BartModel; MarianMTModel, MarianModel
    start = re.sub(r"(For|M)$", "", common)
    return f"`{start}`: {', '.join(name.removeprefix(start) for name in names)}"


def _values(values: tuple[Any, ...]) -> str:
    return " or ".join(json.dumps(value) for value in values)


if __name__ == "__main__":
    print(markdown())
