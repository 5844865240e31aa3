"""gpt-oss (OpenAI 2025, 2508.10925): experts with biases and a clamped swiglu, attention sinks, alternating windows."""

from __future__ import annotations

from typing import Any

from jaxlm.hf.fields import Field, FieldMap, Values, fixed, layer_types, unused
from jaxlm.hf.llama import ATTENTION, SHARED, family
from jaxlm.hf.rope import rope
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Rule

_YARN = dict(
    rope_type="yarn",
    factor=32.0,
    beta_fast=32.0,
    beta_slow=1.0,
    truncate=False,
    original_max_position_embeddings=4096,
)


def _read_quantization(settings: Settings, name: str, ours: Values) -> Values:
    """Experts in mxfp4 are read as the numbers that they are; there is no other format."""
    given = settings(name, None)
    if given is not None and given.get("quant_method") != "mxfp4":
        raise settings.unsupported(f"{name}.quant_method", given.get("quant_method"), "mxfp4")
    return {}


def _pattern(settings: Settings) -> tuple[str, ...]:
    return ("local", "global") if settings.typed("num_hidden_layers") > 1 else ("local",)


def _read_window(settings: Settings, name: str, ours: Values) -> Values:
    if "local" not in ours["layer_pattern"]:
        settings.skip(name)
        return {}
    return {"window": settings.typed(name, 128)}


def _write_window(name: str, ours: Values) -> dict[str, Any]:
    return {name: ours["window"] or 128}


FIELDS: FieldMap = SHARED | {
    "head_dim": ("head_dim", 64),
    # all activations are the clamped swiglu
    "hidden_act": fixed("silu", write=True),
    "swiglu_limit": ("swiglu_limit", 7.0),
    "swiglu_alpha": ("swiglu_gain", 1.702),
    "max_position_embeddings": ("max_len", 131072),
    "rms_norm_eps": ("norm_eps", 1e-5),
    "attention_bias": (("biases.qkv", "biases.attn_out"), True),
    "num_local_experts": Field(
        lambda settings, name, ours: {
            "num_experts": settings.typed(name, 128),
            "biases.mlp": True,
            "biases.router": True,
        },
        lambda name, ours: {name: ours["num_experts"]},
    ),
    "num_experts_per_tok": ("experts_per_token", 4),
    "experts_per_token": ("experts_per_token", lambda ours: ours["experts_per_token"]),
    "router_aux_loss_coef": ("router_balance", 0.001),
    "layer_types": layer_types(_pattern),
    "sliding_window": Field(_read_window, _write_window),
    "quantization_config": Field(_read_quantization, lambda name, ours: {}),
    **rope(theta=150_000.0, missing=_YARN),
    **unused("output_router_logits", "initial_context_length"),
}
LAYER = {
    **ATTENTION,
    "self_attn.sinks": "attn/sinks",
    "mlp.router.weight": "mlp/router",
    "mlp.router.bias": "mlp/router_bias",
    "mlp.experts.gate_up_proj": Rule("E D (F 2) -> E D F", "mlp/expert_gate", "mlp/expert_up"),
    "mlp.experts.gate_up_proj_bias": Rule(
        "E (F 2) -> E F", "mlp/expert_gate_bias", "mlp/expert_up_bias"
    ),
    "mlp.experts.down_proj": Rule("E F D -> E F D", "mlp/expert_down"),
    "mlp.experts.down_proj_bias": Rule("E D -> E D", "mlp/expert_down_bias"),
}
GPT_OSS = family(
    "gpt_oss",
    "GptOss",
    FIELDS,
    LAYER,
    activation="swiglu_clamped",
    attention_sinks=True,
)
