"""SmolLM 3 (Hugging Face 2025): Llama with layers that have no positions (NoPE), every fourth by default."""

from __future__ import annotations

from typing import Any

from jaxlm.hf import fields
from jaxlm.hf.fields import Field, FieldMap, Values
from jaxlm.hf.llama import ATTENTION_BIAS, OLD_PREFIX, SHARED, family
from jaxlm.hf.rope import rope
from jaxlm.hf.settings import Settings


def _read_layers(settings: Settings, name: str, ours: Values) -> Values:
    """Which layers rotate, and which have a window: of those without positions by default."""
    count = ours["num_layers"]
    interval = settings.typed("no_rope_layer_interval", 4)
    rotates = settings(name, [int((i + 1) % interval != 0) for i in range(count)])[:count]
    if len(rotates) < count:
        raise settings.unsupported(name, rotates, f"a list of {count} numbers or more")
    window = settings.nullable("sliding_window", None)
    has_window = settings.typed("use_sliding_window", False) and window is not None
    default = tuple("global" if x or not has_window else "local" for x in rotates)
    pattern = fields.read_layer_types(settings) or fields.shortest_pattern(default)
    if "local" not in pattern:
        window, pattern = None, ("local",)
    elif window is None:
        raise settings.unsupported("sliding_window", window, "a number, with these layer_types")
    rope_pattern = fields.shortest_pattern(tuple("rotary" if x else "none" for x in rotates))
    return dict(rope_pattern=rope_pattern, window=window, layer_pattern=pattern)


def _write_layers(name: str, ours: Values) -> dict[str, Any]:
    return {
        name: [int(x) for x in ours["rotary_layers"]],
        "use_sliding_window": ours["window"] is not None,
        "sliding_window": ours["window"],
        "layer_types": fields.write_layer_types(ours),
    }


FIELDS: FieldMap = {
    **SHARED,
    **ATTENTION_BIAS,
    "mlp_bias": ("biases.mlp", False),
    "num_key_value_heads": ("num_kv_heads", 4),
    "max_position_embeddings": ("max_len", 32768),
    "tie_word_embeddings": ("tie_embeddings", True),
    "no_rope_layers": Field(_read_layers, _write_layers),
    **rope(theta=2e6),
}
SMOLLM3 = family("smollm3", "SmolLM3", FIELDS, span=OLD_PREFIX)
