"""Rotary positions in config.json: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""

from __future__ import annotations

from typing import Any

from jaxlm.config import RopeScaling
from jaxlm.hf.fields import Field, Values
from jaxlm.hf.settings import Settings

# kind of scaling -> its settings besides the factor; the names are the same in jaxlm and transformers
_SCALING: dict[str, tuple[str, ...]] = {
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow"),
}


def rope(
    *, theta: float = 10_000.0, fraction: float = 1.0, older: tuple[str, str] | None = None
) -> dict[str, Field]:
    """Base, rotated fraction of a head, and scaling, for models where all layers are the same.

    Args:
        theta: the family's default base.
        fraction: the family's default fraction.
        older: names of base and fraction before transformers 5; None: `rope_theta` and no fraction.
    """

    def read(settings: Settings, name: str, values: Values) -> Values:
        base, rope_fraction = theta, fraction
        if older:
            base, rope_fraction = settings(older[0], theta), settings(older[1], fraction)
        given = dict(settings(name, None) or {})
        scaling = settings("rope_scaling", None) or {}
        old_theta = settings("rope_theta", base)
        given = given or {**scaling, "rope_theta": old_theta}
        base, rope_fraction, rope_scaling = _read(settings, given, base, rope_fraction)
        return dict(rope_theta=base, rope_fraction=rope_fraction, rope_scaling=rope_scaling)

    def write(name: str, values: Values) -> dict[str, Any]:
        base, rope_fraction = values["rope_theta"], values["rope_fraction"]
        parameters = _write(base, values["rope_scaling"])
        theirs = {name: parameters, "rope_theta": base}
        # older versions expect null instead of a default type
        theirs["rope_scaling"] = _write_scaling(values["rope_scaling"])
        if rope_fraction != fraction or older:
            parameters["partial_rotary_factor"] = rope_fraction
        return theirs | (dict(zip(older, (base, rope_fraction), strict=True)) if older else {})

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
        given = settings(name, None) or {}
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
            "full_attention": _write(base, values["rope_scaling"]),
            "sliding_attention": _write(local, None),
        }
        theirs = {name: parameters, older[0]: base, older[1]: local}
        if has_scaling:
            theirs["rope_scaling"] = _write_scaling(values["rope_scaling"])
        return theirs

    return {"rope_parameters": Field(read, write)}


def _read(
    settings: Settings, given: dict[str, Any], theta: float, fraction: float
) -> tuple[float, float, RopeScaling | None]:
    """Base, rotated fraction and scaling in an object of `rope_parameters`."""
    given = {name: value for name, value in given.items() if value is not None}
    base = float(given.pop("rope_theta", theta))
    rope_fraction = float(given.pop("partial_rotary_factor", fraction))
    old_kind = given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    original = given.pop("original_max_position_embeddings", None)
    if kind == "default":
        return base, rope_fraction, None
    if kind not in _SCALING:
        raise settings.unsupported("rope_type", kind, ", ".join(["default", *_SCALING]))
    if given.get("truncate") is True:
        del given["truncate"]
    names = ("factor", *_SCALING[kind])
    options: dict[str, Any] = {x: float(given.pop(x)) for x in names if x in given}
    if "factor" not in options:
        raise ValueError(f"{settings.where}: rope_parameters.factor is missing")
    if given:
        raise ValueError(
            f"{settings.where}: {', '.join(given)} is not supported in rope_parameters of type {kind}"
        )
    if kind != "linear":
        options["original_max_len"] = int(original or settings.typed("max_position_embeddings"))
    return base, rope_fraction, RopeScaling(kind=kind, **options)


def _write(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_type": "default", **(_write_scaling(scaling) or {})}


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_max_len
    return values | {name: getattr(scaling, name) for name in _SCALING[scaling.kind]}
