"""Gemma (2024, 2403.08295), Gemma 2 (2408.00118) and Gemma 3 (2503.19786): Llama's layout with other norms."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.hf.family import Head
from jaxlm.hf.fields import (
    Field,
    FieldMap,
    Values,
    activation,
    field,
    fixed,
    layer_types,
    nullable,
    unused,
)
from jaxlm.hf.llama import ATTENTION_BIAS, LAYER, SHARED, family
from jaxlm.hf.rope import rope_by_layer
from jaxlm.hf.settings import Settings

ACTIVATION = activation("gelu_pytorch_tanh", is_gated=True)


def _read_activation(settings: Settings, name: str, ours: Values) -> Values:
    """Gemma's files say "gelu" but mean the tanh approximation; transformers reads them the same way."""
    if settings(name, None) == "gelu":
        return {"activation": "geglu_tanh"}
    return ACTIVATION.read(settings, name, ours)


FIRST: FieldMap = {
    **SHARED,
    **ATTENTION_BIAS,
    "hidden_act": Field(_read_activation, ACTIVATION.write),
    "hidden_activation": fixed("gelu_pytorch_tanh"),
    "head_dim": ("head_dim", 256),
    "max_position_embeddings": ("max_len", 8192),
    "tie_word_embeddings": ("tie_embeddings", True),
    "use_bidirectional_attention": fixed(False),
}


def _later(every: int) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 added; one layer in `every` is global unless the file says otherwise."""

    def pattern(settings: Settings) -> tuple[str, ...]:
        older = settings("_sliding_window_pattern", every)
        return ("local",) * (settings("sliding_window_pattern", older) - 1) + ("global",)

    return {
        **SHARED,
        **ATTENTION_BIAS,
        **unused("hidden_act", "cache_implementation"),
        "hidden_activation": ACTIVATION,
        "head_dim": ("head_dim", 256),
        "tie_word_embeddings": ("tie_embeddings", True),
        "use_bidirectional_attention": fixed(False),
        "sliding_window": ("window", 4096),
        "layer_types": layer_types(pattern),
        "query_pre_attn_scalar": field(
            "attention_scale",
            256,
            read=lambda scalar, ours: scalar**-0.5,
            write=lambda scale, ours: _whole(scale**-2),
        ),
    }


def _whole(x: float) -> float | int:
    return round(x) if abs(x - round(x)) < 1e-6 else x


# the norms on the outputs of attention and MLP, and on the input of the MLP
LATER_LAYER = LAYER | {
    "post_attention_layernorm.weight": "attn_out_norm/scale",
    "pre_feedforward_layernorm.weight": "mlp_norm/scale",
    "post_feedforward_layernorm.weight": "mlp_out_norm/scale",
}
del LATER_LAYER["post_attention_layernorm.bias"]
STYLE: dict[str, Any] = dict(norm="rms_norm_plus_one", scale_embeddings=True)

GEMMA = family("gemma", "Gemma", FIRST, **STYLE)
GEMMA2 = family(
    "gemma2",
    "Gemma2",
    {
        **_later(every=2),
        "attn_logit_softcapping": nullable("attention_softcap", 50.0),
        "final_logit_softcapping": nullable("logit_softcap", 30.0),
    },
    LATER_LAYER,
    norm_place="both",
    **STYLE,
)
# class of a model with images -> class of its text part
TEXT_CLASSES = {
    "Gemma3ForConditionalGeneration": "Gemma3ForCausalLM",
    "Gemma3ForSequenceClassification": "Gemma3TextForSequenceClassification",
    "Gemma3Model": "Gemma3TextModel",
}
_GEMMA3 = family(
    "gemma3_text",
    "Gemma3",
    {
        **_later(every=6),
        # configs with images leave out what is the default
        "vocab_size": ("vocab_size", 262_208),
        "hidden_size": ("dim", 2304),
        "intermediate_size": ("mlp_dim", 9216),
        "num_hidden_layers": ("num_layers", 26),
        "num_attention_heads": ("num_heads", 8),
        "num_key_value_heads": ("num_kv_heads", 4),
        "max_position_embeddings": ("max_len", 131_072),
        "attn_logit_softcapping": nullable("attention_softcap", None),
        "final_logit_softcapping": nullable("logit_softcap", None),
        **rope_by_layer(
            theta=1e6,
            local_theta=10_000.0,
            older=("rope_theta", "rope_local_base_freq"),
            has_scaling=True,
        ),
    },
    LATER_LAYER,
    "Gemma3TextModel",
    tokens=None,
    has_classifier=False,
    norm_place="both",
    extra_norms=("qk", "final"),
    **STYLE,
)
GEMMA3 = dataclasses.replace(
    _GEMMA3,
    heads={
        **_GEMMA3.heads,
        "Gemma3TextForSequenceClassification": Head(
            "classifier", {"score.weight": "head/classes/kernel"}
        ),
    },
    # the text part of a model with images, as it is stored and as transformers 5 names it in memory
    aliases={
        "language_model.model.": "model.",
        "model.language_model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    ignored=(*_GEMMA3.ignored, r"(model\.)?(vision_tower|multi_modal_projector)\..*"),
)
