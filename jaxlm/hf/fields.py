"""Maps between the fields of a config.json and the fields of our configs, used in both directions.

A map is a dict from the name of a field of theirs to one of

    "dim"                      our field, an integer that must be given
    ("norm_eps", 1e-5)         our field and the default of their class, which also says what type a value must have;
                               a function of our values read so far makes a default of them
    Field                      anything else, made by the functions below

Several of their fields may map to one of ours if they agree, and a tuple of names of ours takes one of theirs. Our
names are those of the config class, with derived sizes written out, and `biases.qkv` for whether a list has a name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from jaxlm.config import TransformerConfig
from jaxlm.config.model import GATED, Activation, ActivationFunction, Bias, ExtraNorm
from jaxlm.hf.settings import Settings

# our fields by name
Values = dict[str, Any]

# their activation -> ours; the first of several is the one that we write
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
# our fields that are lists of these names
_LISTS: dict[str, tuple[str, ...]] = {"biases": get_args(Bias), "extra_norms": get_args(ExtraNorm)}
_REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of theirs that needs more than a name and a default."""

    # (settings, their name, our values so far) -> our values
    read: Callable[[Settings, str, Values], Values]
    # (their name, our values) -> their values
    write: Callable[[str, Values], dict[str, Any]]


# their name -> str, (ours, default) or Field
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
    """A field of one value, converted by `read` and `write`, which also get our other values."""
    names = (ours,) if isinstance(ours, str) else ours

    def read_field(settings: Settings, name: str, values: Values) -> Values:
        standard = default(values) if callable(default) else default
        theirs = settings.typed(name, *(() if standard is _REQUIRED else (standard,)))
        if least is not None and theirs < least:
            raise settings.unsupported(name, theirs, f"{least} or more")
        return dict.fromkeys(names, read(theirs, values))

    return Field(read_field, lambda name, values: {name: write(values[names[0]], values)})


def choice(ours: str, values: Mapping[Any, Any]) -> Field:
    """A field whose values stand for values of ours; the first is the default."""
    back = {value: key for key, value in values.items()}

    def read(settings: Settings, name: str, _: Values) -> Values:
        settings.only(name, *values)
        return {ours: values[settings(name, next(iter(values)))]}

    return Field(
        read, lambda name, values: {name: back.get(values[ours], next(iter(back.values())))}
    )


def nullable(ours: str, default: Any) -> Field:
    """A field in which `null` means none of it, and only absence means the default."""
    return Field(
        lambda settings, name, _: {ours: settings.nullable(name, default)},
        lambda name, values: {name: values[ours]},
    )


def fixed(*allowed: Any, write: bool = False) -> Field:
    """A field whose other values we cannot honour; the first is their default, written only if `write`."""

    def check(settings: Settings, name: str, values: Values) -> Values:
        settings.only(name, *allowed)
        return {}

    return Field(check, lambda name, _: {name: allowed[0]} if write else {})


def agrees(ours: str) -> Field:
    """A field that must have the value of one of ours if it is given; not written."""
    return Field(
        lambda settings, name, values: {ours: settings(name, values[ours])}, lambda name, _: {}
    )


def written(ours: str) -> Field:
    """A field that other readers use; we write it and do not read it."""
    return Field(_skip, lambda name, values: {name: values[ours]})


def unused(*names: str) -> dict[str, Field]:
    """Fields that change nothing that we compute: dropout of heads, settings of text generation, kernels to use."""
    return dict.fromkeys(names, Field(_skip, lambda name, _: {}))


def _skip(settings: Settings, name: str, values: Values) -> Values:
    settings.skip(name)
    return {}


def activation(default: str, *, is_gated: bool = False) -> Field:
    """The MLP's activation, with a gate or without; of several names of one function the default is written."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        function = activation_function(settings, name, settings(name, default))
        return {"activation": gated(function) if is_gated else function}

    def write(name: str, values: Values) -> dict[str, Any]:
        function: Any = GATED.get(values["activation"], values["activation"])
        return {name: default if ACTIVATIONS[default] == function else activation_name(function)}

    return Field(read, write)


def activation_function(settings: Settings, name: str, value: Any) -> ActivationFunction:
    """Our name for one of their activations."""
    if value not in ACTIVATIONS:
        raise settings.unsupported(name, value, ", ".join(ACTIVATIONS))
    return ACTIVATIONS[value]


def activation_name(function: ActivationFunction) -> str:
    """Their name for one of our activation functions."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == function)


def gated(function: ActivationFunction) -> Activation:
    """The gated activation that applies a function to the gate."""
    return cast("Activation", next(name for name, of in GATED.items() if of == function))


_LAYER_TYPES = {"sliding_attention": "local", "full_attention": "global"}


def layer_types(default: Callable[[Settings], tuple[str, ...]]) -> Field:
    """`layer_types` as our layer_pattern; `default` is the pattern of files without it."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        standard = default(settings)
        return {"layer_pattern": read_layer_types(settings, name) or standard}

    return Field(read, lambda name, values: {name: write_layer_types(values)})


def read_layer_types(settings: Settings, name: str = "layer_types") -> tuple[str, ...] | None:
    """The list of layers as the shortest pattern that repeats to it; None where it is not given."""
    given = settings(name, None)
    if given is None:
        return None
    for kind in given:
        if kind not in _LAYER_TYPES:
            raise settings.unsupported(name, kind, " or ".join(_LAYER_TYPES))
    return shortest_pattern(tuple(_LAYER_TYPES[kind] for kind in given))


def write_layer_types(values: Values) -> list[str]:
    """Their name for the attention of each layer."""
    return [("full_attention", "sliding_attention")[local] for local in values["local_layers"]]


def shortest_pattern(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest start of `kinds` that, repeated and cut, gives all of it."""
    for size in range(1, len(kinds)):
        if all(kind == kinds[i % size] for i, kind in enumerate(kinds)):
            return kinds[:size]
    return kinds


# --- whole maps ---


def explicit(config: TransformerConfig) -> Values:
    """A config's fields by name with what is derived written out, and its lists of names as booleans."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    kinds = tuple("local" if is_local else "global" for is_local in config.local_layers)
    if config.attention_scale is None:
        values["attention_scale"] = config.head_width**-0.5
    if config.rope_local_theta is None:
        values["rope_local_theta"] = config.rope_theta
    if values.get("num_decoder_layers", 0) is None:
        values["num_decoder_layers"] = config.num_layers
    return values | dict(
        num_kv_heads=config.kv_heads,
        head_dim=config.head_width,
        mlp_dim=config.mlp_width,
        embedding_dim=config.embedding_width,
        layer_pattern=shortest_pattern(kinds),
        local_layers=config.local_layers,
        **_flags(config),
    )


def read(
    fields: FieldMap, settings: Settings, kind: type[Any], style: Mapping[str, Any]
) -> TransformerConfig:
    """Our config of a config.json.

    Args:
        fields: the map.
        settings: the values of config.json.
        kind: class of the config.
        style: our fields that are the same in all models of the family.

    Raises:
        ValueError: a value that is missing, of another type, or that we cannot honour.
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
    for derived, source in (("embedding_dim", "dim"), ("num_decoder_layers", "num_layers")):
        if derived in values and values[derived] == values[source]:
            values[derived] = None
    return kind(**values)


def write(fields: FieldMap, config: TransformerConfig) -> dict[str, Any]:
    """The values of config.json of a config; only `read` of them tells whether they describe the same model."""
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
