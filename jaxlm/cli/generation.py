"""Options that the commands which write text share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import tyro

from jaxlm.cli.arguments import read_text
from jaxlm.config import json_text
from jaxlm.generation.settings import Constraint, Settings

# of the weights while writing
Dtype = Literal["float32", "bfloat16"] | None
ModelPath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_DIR_OR_HF_DIR_OR_GGUF")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to write; what is not given is as the model's makers say."""

    # at most this many tokens
    max_new_tokens: int | None = None
    # at least this many
    min_new_tokens: int | None = None
    # logits are divided by it; 0: always the most probable token
    temperature: float | None = None
    # sample from this many of the most probable tokens
    top_k: int | None = None
    # sample from the fewest most probable tokens that sum to this
    top_p: float | None = None
    # sample from tokens at least this times as probable as the best one
    min_p: float | None = None
    # divides the logits of tokens that have occurred
    repetition_penalty: float | None = None
    # subtracted from the logits of tokens that were written
    presence_penalty: float | None = None
    # subtracted from the logits of tokens, for each time that they were written
    frequency_penalty: float | None = None
    # no sequence of this many tokens twice
    no_repeat_ngram: int | None = None
    # strings that end the text and do not belong to it
    stop: tuple[str, ...] | None = None
    # the same seed gives the same text
    seed: int = 0
    # file with a JSON schema that the text must match
    json_schema: pathlib.Path | None = None
    # regular expression that the text must match
    regex: str | None = None
    # file with a grammar in Lark's notation that the text must match
    grammar: pathlib.Path | None = None

    def check(self) -> None:
        """Raises ValueError for a value that no model takes, before one is loaded."""
        given = self.fields()
        # the default of the model may be higher than that of all
        least = max(1, given.get("min_new_tokens", 0))
        Settings(**{"max_new_tokens": least, **given})

    def fields(self) -> dict[str, Any]:
        """The fields of `generation.settings.Settings` that are given.

        Raises:
            ValueError: a file cannot be read.
        """
        given = {
            f.name: value
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) is not None
        }
        constraint: dict[str, Any] = {}
        if (path := given.pop("json_schema", None)) is not None:
            constraint["json_schema"] = json_text.read(path)
        if (path := given.pop("grammar", None)) is not None:
            constraint["grammar"] = read_text(path)
        if "regex" in given:
            constraint["regex"] = given.pop("regex")
        if constraint:
            given["constraint"] = Constraint(**constraint)
        return given
