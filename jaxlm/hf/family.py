"""Definition of a model family: the map of its config.json, the names of its tensors, its heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxlm.config import DecoderConfig
from jaxlm.hf import fields
from jaxlm.hf.fields import FieldMap
from jaxlm.hf.kinds import Kind
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Table, dense


@dataclasses.dataclass(frozen=True)
class Head:
    """One of a family's classes with a head, and the names of the head's tensors."""

    kind: Kind
    table: Table
    # prefix of the backbone's tensor names in this class; None: the family's
    prefix: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A model_type of transformers."""

    model_type: str
    # jaxlm config class
    config: type[Any]
    # transformers class without a head
    base: str
    # prefix of the backbone's tensor names in files of models with a head
    prefix: str
    # tensors of the backbone; parameter paths begin with `backbone/`
    table: Table
    # class -> head; tensor names include the prefix, parameter paths begin with `head/`
    heads: Mapping[str, Head]
    # config.json, in both directions
    fields: FieldMap
    # jaxlm fields that are the same in all models of the family and are not in config.json
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # how default positions are computed: by counting all tokens of a row, those that the attention mask keeps (OPT),
    # or those that are not the padding token, regardless of the mask (RoBERTa)
    positions: Literal["row", "mask", "pad_token"] = "row"
    # tensor -> the one of the table (both without the prefix, or of a head) to which transformers ties it
    twins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # whether it ties them whatever config.json says, unless their values differ (T5)
    always_ties: bool = False
    # tensors that may be missing, and are zeros then
    zeros: tuple[str, ...] = ()
    # part of a tensor name in old files -> current name
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # patterns of tensor names, without the prefix, that are tables of sines: they are computed here, and are refused if
    # the stored ones are others
    sines: tuple[str, ...] = ()
    # patterns of tensor names, without the prefix, that are not loaded: buffers and unsupported heads
    ignored: tuple[str, ...] = ()

    def read(self, settings: Settings) -> Any:
        """The jaxlm config for a config.json; raises ValueError for unsupported values."""
        return fields.read(self.fields, settings, self.config, self.style)

    def write(self, config: Any) -> dict[str, Any]:
        """The config.json for a config; may describe another model, so compare the result of `read` with the config."""
        return fields.write(self.fields, config)

    def whole_table(self, architecture: str) -> dict[str, Any]:
        """The table of backbone and head, with tensor names as in a file of this class."""
        if architecture == self.base:
            return dict(self.table)
        prefix = self.prefix_of(architecture)
        backbone = {prefix + name: rule for name, rule in self.table.items()}
        return {**backbone, **self.heads[architecture].table}

    def whole_twins(self, architecture: str) -> dict[str, str]:
        """The tied tensors of backbone and head, with names as in a file of this class."""
        table = self.whole_table(architecture)
        prefix = self.prefix_of(architecture)
        named = {
            (prefix + twin if name in self.table else twin): (
                prefix + name if name in self.table else name
            )
            for twin, name in self.twins.items()
        }
        return {twin: name for twin, name in named.items() if name in table}

    def prefix_of(self, architecture: str) -> str:
        """The prefix of the backbone's tensor names in files of this class."""
        if architecture == self.base:
            return ""
        own = self.heads[architecture].prefix
        return self.prefix if own is None else own

    def bare(self, name: str) -> str:
        """A tensor name without the prefix that it has in one of the classes."""
        for prefix in (self.prefix, *(head.prefix for head in self.heads.values())):
            if prefix and name.startswith(prefix):
                return name.removeprefix(prefix)
        return name

    def kind(self, architecture: str) -> Kind:
        """The kind of head of this class."""
        return "none" if architecture == self.base else self.heads[architecture].kind


def decoder(
    model_type: str,
    name: str,
    *,
    unembedding: str = "lm_head",
    tokens: str | None = None,
    has_classifier: bool = True,
    span: str | bool = False,
    **more: Any,
) -> Family:
    """A family of causal language models whose class names begin with `name`.

    Args:
        model_type: its model_type.
        name: beginning of the class names.
        unembedding: name of the output table.
        tokens: name of the layer of ForTokenClassification; None: there is no such class.
        has_classifier: whether there is ForSequenceClassification.
        span: whether there is ForQuestionAnswering; a string: with this prefix of the backbone, not the usual one.
        more: further fields of the family.
    """
    logits: Table = {
        f"{unembedding}.weight": "head/unembedding",
        f"{unembedding}.bias": "head/unembedding_bias",
    }
    heads = {f"{name}ForCausalLM": Head("causal_lm", logits)}
    if has_classifier:
        table: Table = {"score.weight": "head/classes/kernel"}
        heads[f"{name}ForSequenceClassification"] = Head("classifier", table)
    if tokens is not None:
        heads[f"{name}ForTokenClassification"] = Head("tokens", dense(tokens, "head/classes"))
    if span:
        own = span if isinstance(span, str) else None
        answer = Head("span", dense("qa_outputs", "head/classes"), own)
        heads[f"{name}ForQuestionAnswering"] = answer
    parts: dict[str, Any] = dict(config=DecoderConfig, base=f"{name}Model", heads=heads)
    return Family(model_type=model_type, **parts | more)
