"""Llama (Touvron et al. 2023, 2302.13971) and the models of the same layout: Mistral, Mixtral, Qwen 2 and 3, Gemma."""

from __future__ import annotations

from typing import Any

from jaxlm.config import llama_style
from jaxlm.hf import fields
from jaxlm.hf.family import Family, decoder
from jaxlm.hf.fields import Field, FieldMap, Values, activation, nullable, unused
from jaxlm.hf.rope import rope
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Table, linear, norm, within

SHARED: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": ("num_kv_heads", lambda ours: ours["num_heads"]),
    "head_dim": ("head_dim", lambda ours: ours["dim"] // ours["num_heads"]),
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": ("max_len", 2048),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "hidden_act": activation("silu", is_gated=True),
    "tie_word_embeddings": ("tie_embeddings", False),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    **rope(),
}
ATTENTION_BIAS: FieldMap = {"attention_bias": (("biases.qkv", "biases.attn_out"), False)}


# of the backbone in the classes for questions, for historical reasons
OLD_PREFIX = "transformer."


def _read_qwen_window(settings: Settings, name: str, ours: Values) -> Values:
    """Qwen's window applies only with `use_sliding_window`, to the layers from `max_window_layers` on."""
    settings.skip("sliding_window", "max_window_layers", "layer_types")
    if not settings.typed(name, False):
        return {}
    pattern = fields.read_layer_types(settings)
    if pattern is None:
        layers, whole = ours["num_layers"], settings.typed("max_window_layers", 28)
        kinds = tuple("global" if i < whole else "local" for i in range(layers))
        pattern = fields.shortest_pattern(kinds)
    if "local" not in pattern:
        return {}
    return dict(window=settings.typed("sliding_window", 4096), layer_pattern=pattern)


def _write_qwen_window(name: str, ours: Values) -> dict[str, Any]:
    return {
        name: ours["window"] is not None,
        "sliding_window": ours["window"],
        "layer_types": fields.write_layer_types(ours),
    }


QWEN: FieldMap = SHARED | {"use_sliding_window": Field(_read_qwen_window, _write_qwen_window)}

ATTENTION = {
    **norm("input_layernorm", "attn_norm"),
    **linear("self_attn.q_proj", "attn/query"),
    **linear("self_attn.k_proj", "attn/key"),
    **linear("self_attn.v_proj", "attn/value"),
    **linear("self_attn.o_proj", "attn/out"),
    "self_attn.q_norm.weight": "attn/q_norm/scale",
    "self_attn.k_norm.weight": "attn/k_norm/scale",
    **norm("post_attention_layernorm", "mlp_norm"),
}
LAYER = {
    **ATTENTION,
    **linear("mlp.gate_proj", "mlp/gate"),
    **linear("mlp.up_proj", "mlp/up"),
    **linear("mlp.down_proj", "mlp/down"),
}
MIXTRAL_LAYER = LAYER | {
    "block_sparse_moe.gate.weight": "mlp/router",
    "block_sparse_moe.experts.{e}.w1.weight": "mlp/expert_gate",
    "block_sparse_moe.experts.{e}.w2.weight": "mlp/expert_down",
    "block_sparse_moe.experts.{e}.w3.weight": "mlp/expert_up",
}


def family(
    model_type: str,
    name: str,
    field_map: FieldMap,
    layer: Table = LAYER,
    base: str | None = None,
    tokens: str | None = "score",
    has_classifier: bool = True,
    span: str | bool = False,
    **style: Any,
) -> Family:
    """A family with the layout of Llama; `style` overrides Llama's style, the others are as in `decoder`."""
    return decoder(
        model_type,
        name,
        base=base or f"{name}Model",
        tokens=tokens,
        has_classifier=has_classifier,
        span=span,
        prefix="model.",
        fields=field_map,
        style=llama_style() | style,
        table={
            "embed_tokens.weight": "backbone/embed/token/embedding",
            **within("layers.{i}.", "backbone/stack/blocks/", layer),
            **norm("norm", "backbone/final_norm"),
        },
        ignored=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    )


LLAMA = family(
    "llama",
    "Llama",
    SHARED
    | ATTENTION_BIAS
    | {"mlp_bias": ("biases.mlp", False)}
    | unused("pretraining_tp"),  # splits matrix products, to reproduce one training run bit for bit
    span=OLD_PREFIX,
)
MISTRAL = family(
    "mistral", "Mistral", SHARED | {"sliding_window": nullable("window", 4096)}, span=True
)
MIXTRAL = family(
    "mixtral",
    "Mixtral",
    SHARED
    | {
        "sliding_window": nullable("window", None),
        "num_local_experts": ("num_experts", 8),
        "num_experts_per_tok": ("experts_per_token", 2),
        "router_aux_loss_coef": ("router_balance", 0.001),
        "router_jitter_noise": ("router_jitter", 0.0),
    }
    | unused("output_router_logits"),
    MIXTRAL_LAYER,
    span=True,
)
QWEN2 = family("qwen2", "Qwen2", QWEN, span=OLD_PREFIX, biases=("qkv",))
QWEN3 = family(
    "qwen3", "Qwen3", QWEN | ATTENTION_BIAS, span=OLD_PREFIX, extra_norms=("qk", "final")
)
