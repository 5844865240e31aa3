"""What a family is: the map of its config.json, the names of its tensors, its heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxlm.config import DecoderConfig
from jaxlm.hf import fields
from jaxlm.hf.fields import FieldMap
from jaxlm.hf.kinds import Kind
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Table


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
    heads: Mapping[str, Head]
    # config.json, in both directions
    fields: FieldMap
    # our fields that are the same in all models of the family and that config.json does not mention
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # what positions count when a call does not give them: all tokens of a row, those that the attention mask keeps
    # (OPT), or those that are not the padding token, whatever the mask says (RoBERTa)
    positions: Literal["row", "mask", "pad_token"] = "row"
    # part of a name in old files -> what it is called now
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # patterns of names, without the prefix, of what we do not need: buffers, and heads that we do not have
    ignored: tuple[str, ...] = ()

    def read(self, settings: Settings) -> Any:
        """Our config of a config.json; refuses what we cannot honour."""
        return fields.read(self.fields, settings, self.config, self.style)

    def write(self, config: Any) -> dict[str, Any]:
        """A config.json of our config, which may describe another model: `read` of it tells."""
        return fields.write(self.fields, config)

    def whole_table(self, architecture: str) -> dict[str, Any]:
        """Names of backbone and head as in a file of this class."""
        if architecture == self.base:
            return dict(self.table)
        backbone = {self.prefix + name: rule for name, rule in self.table.items()}
        return {**backbone, **self.heads[architecture].table}

    def kind(self, architecture: str) -> Kind:
        """The kind of head of this class."""
        return "none" if architecture == self.base else self.heads[architecture].kind


def decoder(model_type: str, name: str, *, unembedding: str = "lm_head", **more: Any) -> Family:
    """A family of language models, whose classes begin with `name` and whose output table is called `unembedding`."""
    tables: dict[str, Table] = {
        f"{name}ForCausalLM": {f"{unembedding}.weight": "head/unembedding"},
        f"{name}ForSequenceClassification": {"score.weight": "head/classes/kernel"},
    }
    kinds: tuple[Kind, ...] = ("causal_lm", "classifier")
    heads = {x: Head(kind, tables[x]) for x, kind in zip(tables, kinds, strict=True)}
    parts: dict[str, Any] = dict(config=DecoderConfig, base=f"{name}Model", heads=heads)
    return Family(model_type=model_type, **parts | more)
