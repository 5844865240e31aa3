"""Maps between the fields of a config.json and the fields of jaxlm configs, used in both directions.

A map is a dict from the name of a config.json field to one of

    "dim"                      a jaxlm field, a required integer
    ("norm_eps", 1e-5)         a jaxlm field and the default in transformers, whose type the value must have; the
                               default may be a function of the jaxlm values read so far
    Field                      anything else, created by the functions below

Several config.json fields may map to one jaxlm field if their values agree, and one may map to a tuple of jaxlm fields.
The jaxlm names are those of the config class, with derived sizes filled in; `biases.qkv` is true if the list `biases`
contains `qkv`. In this package, `ours` stands for jaxlm and `theirs` for transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from jaxlm.config import TransformerConfig
from jaxlm.config.model import GATED, Activation, ActivationFunction, Bias, ExtraNorm
from jaxlm.hf.settings import Settings

# jaxlm fields by name
Values = dict[str, Any]

# activation in transformers -> in jaxlm; the first of several names is the one that is written
ACTIVATIONS: dict[str, ActivationFunction] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# jaxlm fields that are lists of these names
_LISTS: dict[str, tuple[str, ...]] = {"biases": get_args(Bias), "extra_norms": get_args(ExtraNorm)}
# field -> the one that it is derived from where it is None
_DERIVED = {
    "embedding_dim": "dim",
    "num_decoder_layers": "num_layers",
    "num_decoder_heads": "num_heads",
    "decoder_mlp_dim": "mlp_dim",
    "embedding_dropout": "dropout",
}
_REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True)
class Field:
    """A config.json field that needs more than a name and a default."""

    # (settings, name in config.json, jaxlm values read so far) -> jaxlm values
    read: Callable[[Settings, str, Values], Values]
    # (name in config.json, jaxlm values) -> config.json values
    write: Callable[[str, Values], dict[str, Any]]
    # the supported values, if they are few
    only: tuple[Any, ...] = ()


# name in config.json -> str, (jaxlm name, default) or Field
FieldMap = dict[str, Any]


# --- kinds of fields ---


def field(
    ours: str | tuple[str, ...],
    default: Any = _REQUIRED,
    *,
    least: int | None = None,
    read: Callable[[Any, Values], Any] = lambda value, ours: value,
    write: Callable[[Any, Values], Any] = lambda value, ours: value,
) -> Field:
    """A single value, converted by `read` and `write`, which also receive the other jaxlm values."""
    names = (ours,) if isinstance(ours, str) else ours

    def read_field(settings: Settings, name: str, values: Values) -> Values:
        fallback = default(values) if callable(default) else default
        theirs = settings.typed(name, *(() if fallback is _REQUIRED else (fallback,)))
        if least is not None and theirs < least:
            raise settings.unsupported(name, theirs, f"{least} or more")
        return dict.fromkeys(names, read(theirs, values))

    return Field(read_field, lambda name, values: {name: write(values[names[0]], values)})


def choice(ours: str, values: Mapping[Any, Any]) -> Field:
    """A field whose values map to those of a jaxlm field; the first is the default."""
    back = {value: key for key, value in values.items()}

    def read(settings: Settings, name: str, _: Values) -> Values:
        settings.only(name, *values)
        return {ours: values[settings(name, next(iter(values)))]}

    return Field(
        read,
        lambda name, values: {name: back.get(values[ours], next(iter(back.values())))},
        tuple(values),
    )


def nullable(ours: str, default: Any) -> Field:
    """A field where `null` means None; the default applies only if the field is missing."""
    return Field(
        lambda settings, name, _: {ours: settings.nullable(name, default)},
        lambda name, values: {name: values[ours]},
    )


def fixed(*allowed: Any, write: bool = False) -> Field:
    """A field with only these supported values; the first is the default, written only if `write`."""

    def check(settings: Settings, name: str, values: Values) -> Values:
        settings.only(name, *allowed)
        return {}

    return Field(check, lambda name, _: {name: allowed[0]} if write else {}, allowed)


def agrees(ours: str) -> Field:
    """A field that, if given, must equal a jaxlm field; not written."""
    return Field(
        lambda settings, name, values: {ours: settings(name, values[ours])}, lambda name, _: {}
    )


def written(ours: str) -> Field:
    """A field that is written for other readers and never read."""
    return Field(_skip, lambda name, values: {name: values[ours]})


def unused(*names: str) -> dict[str, Field]:
    """Fields that do not affect the model here: dropout of heads, text generation settings, choice of kernels."""
    return dict.fromkeys(names, Field(_skip, lambda name, _: {}))


def _skip(settings: Settings, name: str, values: Values) -> Values:
    settings.skip(name)
    return {}


def activation(default: str, *, is_gated: bool = False) -> Field:
    """The MLP's activation, gated or not; where several names mean the same function, `default` is written."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        function = activation_function(settings, name, settings(name, default))
        return {"activation": gated(function) if is_gated else function}

    def write(name: str, values: Values) -> dict[str, Any]:
        function: Any = GATED.get(values["activation"], values["activation"])
        return {name: default if ACTIVATIONS[default] == function else activation_name(function)}

    return Field(read, write)


def activation_function(settings: Settings, name: str, value: Any) -> ActivationFunction:
    """The jaxlm name of a transformers activation."""
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise settings.unsupported(name, value, ", ".join(ACTIVATIONS))
    return ACTIVATIONS[value]


def activation_name(function: ActivationFunction) -> str:
    """The transformers name of a jaxlm activation function."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == function)


def gated(function: ActivationFunction) -> Activation:
    """The gated activation that applies a function to the gate."""
    return cast("Activation", next(name for name, of in GATED.items() if of == function))


_LAYER_TYPES = {"sliding_attention": "local", "full_attention": "global"}


def layer_types(default: Callable[[Settings], tuple[str, ...]]) -> Field:
    """`layer_types` as a jaxlm layer_pattern; `default` is the pattern of files without it."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        fallback = default(settings)
        return {"layer_pattern": read_layer_types(settings, name) or fallback}

    return Field(read, lambda name, values: {name: write_layer_types(values)})


def read_layer_types(settings: Settings, name: str = "layer_types") -> tuple[str, ...] | None:
    """The list of layers as the shortest repeating pattern; None if it is not given."""
    given = settings(name, None)
    if given is None:
        return None
    if not isinstance(given, list):
        raise settings.unsupported(name, given, "a list")
    for kind in given:
        if not isinstance(kind, str) or kind not in _LAYER_TYPES:
            raise settings.unsupported(name, kind, " or ".join(_LAYER_TYPES))
    return shortest_pattern(tuple(_LAYER_TYPES[kind] for kind in given))


def write_layer_types(values: Values) -> list[str]:
    """The transformers name for the attention of each layer."""
    return [("full_attention", "sliding_attention")[local] for local in values["local_layers"]]


def shortest_pattern(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest prefix of `kinds` that, repeated and truncated, gives all of it."""
    for size in range(1, len(kinds)):
        if all(kind == kinds[i % size] for i, kind in enumerate(kinds)):
            return kinds[:size]
    return kinds


# --- whole maps ---


def explicit(config: TransformerConfig) -> Values:
    """A config's fields by name, with derived values filled in and lists of names as booleans."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    kinds = tuple("local" if is_local else "global" for is_local in config.local_layers)
    rotary = tuple("rotary" if rotates else "none" for rotates in config.rotary_layers)
    if config.attention_scale is None:
        values["attention_scale"] = config.score_scale
    if config.rope_local_theta is None:
        values["rope_local_theta"] = config.rope_theta
    sides = {"num_decoder_layers": "num_layers", "num_decoder_heads": "num_heads"}
    for name, source in sides.items():
        if values.get(name, 0) is None:
            values[name] = getattr(config, source)
    if values.get("decoder_mlp_dim", 0) is None:
        values["decoder_mlp_dim"] = config.mlp_width
    if values.get("lm_head_activation", 0) is None:
        values["lm_head_activation"] = config.activation_function
    if config.embedding_dropout is None:
        values["embedding_dropout"] = config.dropout
    return values | dict(
        num_kv_heads=config.kv_heads,
        head_dim=config.head_width,
        mlp_dim=config.mlp_width,
        embedding_dim=config.embedding_width,
        layer_pattern=shortest_pattern(kinds),
        rope_pattern=shortest_pattern(rotary),
        local_layers=config.local_layers,
        rotary_layers=config.rotary_layers,
        **_flags(config),
    )


def read(
    fields: FieldMap, settings: Settings, kind: type[Any], style: Mapping[str, Any]
) -> TransformerConfig:
    """The jaxlm config for a config.json.

    Args:
        fields: the map.
        settings: the values of config.json.
        kind: class of the jaxlm config.
        style: jaxlm fields that are the same in all models of the family.

    Raises:
        ValueError: a value is missing, of the wrong type, or not supported.
    """
    values: Values = {**style, **_flags(kind(**style))}
    origin: dict[str, str] = {}
    for name, rule in fields.items():
        for key, value in _field(rule).read(settings, name, values).items():
            if key in origin and values[key] != value:
                known = f"the value that {origin[key]} implies, {values[key]!r}"
                raise settings.unsupported(name, settings(name, value), known)
            values[key], origin[key] = value, name
    for name, parts in _LISTS.items():
        values[name] = tuple(part for part in parts if values.pop(f"{name}.{part}"))
    for derived, source in _DERIVED.items():
        if derived in values and values[derived] == values[source]:
            values[derived] = None
    return kind(**values)


def write(fields: FieldMap, config: TransformerConfig) -> dict[str, Any]:
    """The config.json values for a config; may describe another model, so compare the result of `read` with it."""
    values = explicit(config)
    theirs: dict[str, Any] = {}
    for name, rule in fields.items():
        theirs |= _field(rule).write(name, values)
    return theirs


def _flags(config: TransformerConfig) -> Values:
    """The lists of names of a config as booleans, such as `biases.qkv`."""
    return {
        f"{name}.{part}": part in getattr(config, name)
        for name, parts in _LISTS.items()
        for part in parts
    }


def _field(rule: str | tuple[Any, Any] | Field) -> Field:
    if isinstance(rule, Field):
        return rule
    return field(rule) if isinstance(rule, str) else field(*rule)
