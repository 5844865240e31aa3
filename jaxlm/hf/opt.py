"""OPT (Zhang et al. 2022, 2205.01068): learned positions that count the tokens of the attention mask."""

from __future__ import annotations

from typing import Any

from jaxlm.config import DecoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Field, FieldMap, Values, activation, fixed, unused
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import linear, norm, within


def _read_norms(settings: Settings, name: str, ours: Values) -> Values:
    is_pre, removed = settings.typed(name, True), settings.typed("_remove_final_layer_norm", False)
    extra_norms = ("final",) if is_pre and not removed else ()
    return {"norm_place": "pre" if is_pre else "post", "extra_norms": extra_norms}


def _write_norms(name: str, ours: Values) -> dict[str, Any]:
    is_pre = ours["norm_place"] == "pre"
    return {name: is_pre, "_remove_final_layer_norm": is_pre and "final" not in ours["extra_norms"]}


FIELDS: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "word_embed_proj_dim": ("dim", lambda ours: ours["dim"]),
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "ffn_dim": "mlp_dim",
    "max_position_embeddings": ("max_len", 2048),
    "do_layer_norm_before": Field(_read_norms, _write_norms),
    "activation_function": activation("relu"),
    "enable_bias": (("biases.qkv", "biases.attn_out", "biases.mlp"), True),
    "layer_norm_elementwise_affine": fixed(True),
    "tie_word_embeddings": ("tie_embeddings", True),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.0),
    "init_std": ("init_std", 0.02),
    **unused("layerdrop", "activation_dropout", "prefix"),
}
LAYER = {
    **linear("self_attn.q_proj", "attn/query"),
    **linear("self_attn.k_proj", "attn/key"),
    **linear("self_attn.v_proj", "attn/value"),
    **linear("self_attn.out_proj", "attn/out"),
    **norm("self_attn_layer_norm", "attn_norm"),
    **linear("fc1", "mlp/up"),
    **linear("fc2", "mlp/down"),
    **norm("final_layer_norm", "mlp_norm"),
}
OPT = Family(
    model_type="opt",
    config=DecoderConfig,
    base="OPTModel",
    prefix="model.",
    fields=FIELDS,
    style=dict(position_offset=2),
    positions="mask",
    table={
        "decoder.embed_tokens.weight": "backbone/embed/token/embedding",
        "decoder.embed_positions.weight": "backbone/embed/position_embedding",
        **within("decoder.layers.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("decoder.final_layer_norm", "backbone/final_norm"),
    },
    heads={
        "OPTForCausalLM": Head("causal_lm", {"lm_head.weight": "head/unembedding"}),
        "OPTForSequenceClassification": Head("classifier", {"score.weight": "head/classes/kernel"}),
    },
    ignored=(r"decoder\.version",),
)
