"""Configs of older versions: their JSON objects as this version writes them."""

from __future__ import annotations

from typing import Any

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


def from_version_1(value: Any) -> Any:
    """A config of version 1, or a part of one, with today's names of its fields."""
    if isinstance(value, list):
        return [from_version_1(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("class")
    renamed = _RENAMED.get(name, {}) if isinstance(name, str) else {}
    return {renamed.get(field, field): from_version_1(part) for field, part in value.items()}
