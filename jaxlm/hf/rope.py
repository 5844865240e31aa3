"""Rotary positions in config.json: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any

from jaxlm.config import RopeScaling
from jaxlm.hf.fields import Field, Values
from jaxlm.hf.settings import Settings

# kind of scaling -> its settings besides the factor, and their names in jaxlm
_SCALING: dict[str, dict[str, str]] = {
    "linear": {},
    "dynamic": {},
    "llama3": {"low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor"},
    "yarn": {
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "truncate": "whole_pairs",
    },
    "longrope": {
        "short_factor": "short_factor",
        "long_factor": "long_factor",
        "attention_factor": "attention_factor",
    },
}
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(RopeScaling)}
# these have the length of the original training in rope_parameters; of `dynamic` it is max_position_embeddings
_WITH_ORIGINAL = ("llama3", "yarn", "longrope")
# old name of a kind -> its name
_ALIASES = {"su": "longrope"}


def rope(
    *,
    theta: float = 10_000.0,
    fraction: float | None = None,
    older: tuple[str, str] | None = None,
    kinds: tuple[str, ...] = tuple(_SCALING),
    aliases: Mapping[str, str] = _ALIASES,
    original: int | None = None,
    missing: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Field]:
    """Base, rotated fraction of a head, and scaling, for models where all layers are the same.

    Args:
        theta: the family's default base.
        fraction: the family's default fraction; None: its models rotate whole heads only.
        older: names of base and fraction before transformers 5; None: `rope_theta` and `partial_rotary_factor`.
        kinds: the kinds of scaling that the family has.
        aliases: old names of kinds.
        original: default of the field `original_max_position_embeddings` outside of rope_parameters, if the family
            has one; it comes before that within.
        missing: the rope_parameters of files without any.
    """
    old_theta, old_fraction = older or ("rope_theta", "partial_rotary_factor")

    def read(settings: Settings, name: str, values: Values) -> Values:
        base = settings("rope_theta", settings(old_theta, theta))
        part = settings(old_fraction, 1.0 if fraction is None else fraction)
        # transformers prefers the older field as well
        newer, scaling = settings(name, None), settings("rope_scaling", None)
        given = dict(_object(settings, name, scaling or newer or missing))
        given["rope_theta"] = given.get("rope_theta") or base
        outside = settings("original_max_position_embeddings", original)
        if outside is not None:
            given["original_max_position_embeddings"] = outside
        kind = given.get("rope_type") or given.get("type") or "default"
        given["rope_type"] = aliases.get(kind, kind) if isinstance(kind, str) else None
        if given["rope_type"] not in ("default", *kinds):
            raise settings.unsupported("rope_type", kind, ", ".join(("default", *kinds)))
        base, rope_fraction, rope_scaling = _read(settings, given, theta, part)
        if fraction is None and rope_fraction != 1:
            raise settings.unsupported("partial_rotary_factor", rope_fraction, "1")
        return dict(rope_theta=base, rope_fraction=rope_fraction, rope_scaling=rope_scaling)

    def write(name: str, values: Values) -> dict[str, Any]:
        base, part, scaling = (values[f"rope_{x}"] for x in ("theta", "fraction", "scaling"))
        parameters = _write(base, scaling, values["max_len"])
        theirs = {name: parameters, old_theta: base, "rope_theta": base}
        # older versions expect null instead of a default type
        theirs["rope_scaling"] = _write_scaling(scaling, values["max_len"])
        for given in (parameters, theirs["rope_scaling"]):
            if given is not None and (fraction is not None or part != 1):
                given["partial_rotary_factor"] = part
        return theirs if fraction is None else theirs | {old_fraction: part}

    return {"rope_parameters": Field(read, write)}


def rope_by_layer(
    *, theta: float, local_theta: float, older: tuple[str, str], has_scaling: bool
) -> dict[str, Field]:
    """Base and scaling of the global layers, and base of the local ones.

    Args:
        theta: the family's default for global layers.
        local_theta: the family's default for local layers.
        older: names of the two bases before transformers 5.
        has_scaling: whether `rope_scaling` is supported, for the global layers; otherwise it is an error.
    """

    def read(settings: Settings, name: str, values: Values) -> Values:
        scaling = settings("rope_scaling", None)
        if scaling is not None and not has_scaling:
            raise settings.unsupported("rope_scaling", scaling, "rope_parameters by type of layer")
        old = {
            old_name: settings(old_name, base)
            for old_name, base in zip(older, (theta, local_theta))
        }
        given = _object(settings, name, settings(name, None) or {})
        if "full_attention" not in given:
            given = {
                "full_attention": {**(scaling or {}), "rope_theta": old[older[0]]},
                "sliding_attention": {"rope_theta": old[older[1]]},
            }
        local = given.get("sliding_attention", {})
        base, rope_fraction, rope_scaling = _read(settings, given["full_attention"], theta, 1.0)
        local_base, local_fraction, local_scaling = _read(settings, local, local_theta, 1.0)
        if rope_fraction != 1 or local_fraction != 1:
            raise settings.unsupported(
                "partial_rotary_factor", min(rope_fraction, local_fraction), "1"
            )
        if local_scaling is not None:
            where = "rope_parameters.sliding_attention.rope_type"
            raise settings.unsupported(where, local_scaling.kind, "default")
        return dict(rope_theta=base, rope_local_theta=local_base, rope_scaling=rope_scaling)

    def write(name: str, values: Values) -> dict[str, Any]:
        base, local = values["rope_theta"], values["rope_local_theta"]
        parameters = {
            "full_attention": _write(base, values["rope_scaling"], values["max_len"]),
            "sliding_attention": _write(local, None, values["max_len"]),
        }
        theirs = {name: parameters, older[0]: base, older[1]: local}
        if has_scaling:
            theirs["rope_scaling"] = _write_scaling(values["rope_scaling"], values["max_len"])
        return theirs

    return {"rope_parameters": Field(read, write)}


def _object(settings: Settings, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise settings.unsupported(name, value, "an object")
    return value


def _read(
    settings: Settings, given: dict[str, Any], theta: float, fraction: float
) -> tuple[float, float, RopeScaling | None]:
    """Base, rotated fraction and scaling in an object of `rope_parameters`."""
    given = _object(settings, "rope_parameters", given)
    given = {name: value for name, value in given.items() if value is not None}
    base = float(given.pop("rope_theta", theta))
    rope_fraction = float(given.pop("partial_rotary_factor", fraction))
    old_kind = given.pop("type", "default")
    kind: Any = given.pop("rope_type", old_kind)
    original = given.pop("original_max_position_embeddings", None)
    if kind == "default":
        return base, rope_fraction, None
    if kind not in list(_SCALING):
        raise settings.unsupported("rope_type", kind, ", ".join(["default", *_SCALING]))
    longest = settings.typed("max_position_embeddings")
    options: dict[str, Any] = {}
    if kind in _WITH_ORIGINAL:
        original = int(original or longest)
        options["original_max_len"] = original
    elif kind == "dynamic":
        if original not in (None, longest):
            raise settings.unsupported(
                "rope_parameters.original_max_position_embeddings", original, str(longest)
            )
        options["original_max_len"] = longest
    if "factor" in given:
        options["factor"] = float(given.pop("factor"))
    elif kind in ("yarn", "longrope"):
        options["factor"] = longest / original
    else:
        raise ValueError(f"{settings.where}: rope_parameters.factor is missing")
    scales = [given.pop(x, None) for x in ("mscale", "mscale_all_dim")] if kind == "yarn" else []
    for name, ours in _SCALING[kind].items():
        if name in given:
            value = given.pop(name)
            as_is = isinstance(value, bool)
            options[ours] = (
                tuple(value) if isinstance(value, list) else value if as_is else float(value)
            )
    if given:
        raise ValueError(
            f"{settings.where}: {', '.join(given)} is not supported in rope_parameters of type {kind}"
        )
    if all(scales) and scales:
        first, second = (0.1 * x * math.log(max(options["factor"], 1)) + 1 for x in scales)
        options.setdefault("attention_factor", first / second)
    return base, rope_fraction, RopeScaling(kind=kind, **options)


def _write(theta: float, scaling: RopeScaling | None, max_len: int) -> dict[str, Any]:
    scaled = _write_scaling(scaling, max_len) or {}
    return {"rope_theta": theta, "rope_type": "default", **scaled}


def _write_scaling(scaling: RopeScaling | None, max_len: int) -> dict[str, Any] | None:
    if scaling is None:
        return None
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "longrope" and scaling.factor == max_len / scaling.original_max_len:
        # older versions know this kind without a factor
        del values["factor"]
    if scaling.kind in _WITH_ORIGINAL:
        values["original_max_position_embeddings"] = scaling.original_max_len
    for name, ours in _SCALING[scaling.kind].items():
        value = getattr(scaling, ours)
        if (
            value != _DEFAULTS[ours]
            or name in ("beta_fast", "beta_slow")
            or scaling.kind == "llama3"
        ):
            values[name] = list(value) if isinstance(value, tuple) else value
    return values
