"""What a family is: how its config.json reads and is written, and its name tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from jaxlm.config import ModelConfig
from jaxlm.hf.fields import Fields
from jaxlm.hf.table import Table

# what stands on the backbone; `heads` has a model for each: Headless, CausalLM, MaskedLM, Seq2SeqLM, Classifier,
# TokenClassifier, SpanQA, Detector
Kind = Literal[
    "none", "causal_lm", "masked_lm", "seq2seq", "classifier", "tokens", "span", "detector"
]


@dataclasses.dataclass(frozen=True)
class Head:
    """One of a family's classes with a head, and the names of the head's tensors."""

    kind: Kind
    table: Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A model_type of transformers."""

    model_type: str
    # class of our config
    config: type[Any]
    # class without a head
    base: str
    # what stands before the backbone's names in files of models with a head
    prefix: str
    # names in our tree begin with `backbone/`
    table: Table
    # class -> head; the tables' names are whole, those in our tree begin with `head/`
    heads: dict[str, Head]
    # their config -> ours; asks for every field that matters and refuses what we cannot do
    read: Callable[[Fields], ModelConfig]
    # ours -> theirs; may write what is not the same model: `read` of it tells
    write: Callable[[Any], dict[str, Any]]
    # what old files call a part of a name -> what it is called now
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    # patterns of names that hold nothing we need: buffers, and heads that we have not
    ignored: tuple[str, ...] = ()

    def whole_table(self, architecture: str) -> dict[str, Any]:
        """Names of backbone and head as in a file of this class."""
        if architecture == self.base:
            return dict(self.table)
        backbone = {self.prefix + name: rule for name, rule in self.table.items()}
        return {**backbone, **self.heads[architecture].table}

    def kind(self, architecture: str) -> Kind:
        """What stands on the backbone in this class."""
        return "none" if architecture == self.base else self.heads[architecture].kind
