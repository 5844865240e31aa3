"""Config files of earlier versions: plain JSON objects in, objects of the current version out.

Every function is pure, leaves what it does not know as it is (so that reading the result reports it), and expects
an object of the version that its docstring names.
"""

from __future__ import annotations

from typing import Any

from jaxlm.config.optimizer import OptimizerConfig, ignored_options

# version 1: value of `biases` -> the boolean it was
_BIASES = {
    "norm": "norm_bias",
    "qkv": "attention_bias",
    "attn_out": "attention_out_bias",
    "mlp": "mlp_bias",
}
# version 1: value of `extra_norms` -> the boolean it was
_EXTRA_NORMS = {"embedding": "embedding_norm", "qk": "qk_norm", "final": "final_norm"}
# version 1: activation of an MLP with `gated_mlp` -> what it is called now
_GATED = {"gelu": "geglu", "gelu_tanh": "geglu_tanh", "relu": "reglu", "silu": "swiglu"}

# version 1: defaults of these booleans and of `activation`; fields that a class sets differently come after
_DEFAULTS: dict[str, Any] = dict(
    norm_bias=True,
    attention_bias=True,
    attention_out_bias=True,
    mlp_bias=True,
    embedding_norm=False,
    qk_norm=False,
    final_norm=True,
    gated_mlp=False,
    activation="gelu_tanh",
)
_CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "DecoderConfig": {},
    "EncoderConfig": dict(embedding_norm=True, final_norm=False, activation="gelu"),
    "EncoderDecoderConfig": dict(final_norm=False, activation="relu"),
}

_MASKING = {
    "rate": "mask_fraction",
    "mask_share": "mask_token_fraction",
    "random_share": "random_token_fraction",
}
# class -> old field -> new field
_RENAMED: dict[str, dict[str, str]] = {
    "OptimizerConfig": {"decay_share": "decay_fraction", "final_share": "final_fraction"},
    "FillInMiddleConfig": {"rate": "fraction", "spm_share": "spm_fraction"},
    "MaskedLMConfig": _MASKING,
    "HybridLMConfig": {**_MASKING, "masked_share": "masked_rows_fraction"},
    "SentencePairConfig": _MASKING,
    "ReplacedTokenConfig": {"rate": "mask_fraction"},
    "SpanCorruptionConfig": {"density": "noise_fraction"},
    "UL2Config": {
        "regular_share": "regular_fraction",
        "sequential_share": "sequential_fraction",
        "extreme_share": "extreme_fraction",
    },
    "DenoisingConfig": {
        "infill_rate": "infill_fraction",
        "permute_share": "permute_fraction",
        "delete_rate": "delete_fraction",
        "rotate_share": "rotate_fraction",
    },
}


def upgrade_model(value: dict[str, Any]) -> dict[str, Any]:
    """A model config of version 1 as one of version 2, in which lists of names replace eight booleans.

    `norm_bias`, `attention_bias`, `attention_out_bias` and `mlp_bias` became `biases`; `embedding_norm`, `qk_norm`
    and `final_norm` became `extra_norms`; `gated_mlp` became part of `activation`.

    Args:
        value: the JSON object, with its `class`.

    Raises:
        ValueError: one of these fields is not a boolean, or the activation is unknown.
    """
    old = _DEFAULTS | _CLASS_DEFAULTS.get(value.get("class", ""), {}) | value
    booleans = [*_BIASES.values(), *_EXTRA_NORMS.values(), "gated_mlp"]
    for name in booleans:
        if not isinstance(old[name], bool):
            raise ValueError(f"model.{name}: {old[name]!r} is not of type bool")
    new = {name: x for name, x in value.items() if name not in booleans}
    for field, parts in (("biases", _BIASES), ("extra_norms", _EXTRA_NORMS)):
        if any(name in value for name in parts.values()):
            new[field] = [part for part, name in parts.items() if old[name]]
    if old["gated_mlp"]:
        if old["activation"] not in _GATED:
            raise ValueError(
                f"model.activation: {old['activation']!r} is not one of {', '.join(_GATED)}"
            )
        new["activation"] = _GATED[old["activation"]]
    return new


def from_version_1(value: Any) -> Any:
    """A config of version 1, or a part of one, with today's names."""
    if isinstance(value, list):
        return [from_version_1(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("class")
    if isinstance(name, str) and name in _CLASS_DEFAULTS:
        value = upgrade_model(value)
    renamed = _RENAMED.get(name, {}) if isinstance(name, str) else {}
    return {renamed.get(field, field): from_version_1(part) for field, part in value.items()}


def without_ignored(value: Any) -> Any:
    """A config of version 2 without the options that its optimizers ignore, which were accepted once."""
    if isinstance(value, list):
        return [without_ignored(item) for item in value]
    if not isinstance(value, dict):
        return value
    idle: tuple[str, ...] = ()
    if value.get("class") == OptimizerConfig.__name__:
        name, schedule = (
            value.get(field, getattr(OptimizerConfig, field)) for field in ("name", "schedule")
        )
        if isinstance(name, str) and isinstance(schedule, str):
            idle = ignored_options(name, schedule)
    return {field: without_ignored(part) for field, part in value.items() if field not in idle}
