"""ModernBERT (Warner et al. 2024, 2412.13663): rotary positions, gated MLPs, local and global attention."""

from __future__ import annotations

from jaxlm.config import EncoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, field, fixed, layer_types, unused
from jaxlm.hf.rope import rope_by_layer
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Rule, dense, linear, norm, within


def _default_pattern(settings: Settings) -> tuple[str, ...]:
    every = settings.typed("global_attn_every_n_layers", 3)
    return ("global", *["local"] * (every - 1))


FIELDS: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": ("max_len", 8192),
    "norm_eps": ("norm_eps", 1e-5),
    "norm_bias": ("biases.norm", False),
    "attention_bias": (("biases.qkv", "biases.attn_out"), False),
    "mlp_bias": ("biases.mlp", False),
    # activations of the MLPs and of the heads
    "hidden_activation": fixed("gelu", "gelu_python", write=True),
    "classifier_activation": fixed("gelu", "gelu_python", write=True),
    "classifier_bias": ("head_bias", False),
    "classifier_pooling": fixed("cls", "mean"),  # read in `kinds`
    "decoder_bias": fixed(True),
    **rope_by_layer(
        theta=160_000.0,
        local_theta=10_000.0,
        older=("global_rope_theta", "local_rope_theta"),
        has_scaling=False,
    ),
    # total width: half to each side of the token
    "local_attention": field(
        "window",
        128,
        read=lambda width, ours: width // 2 + 1,
        write=lambda window, ours: 2 * ((window or ours["max_len"]) - 1),
    ),
    "layer_types": layer_types(_default_pattern),
    "tie_word_embeddings": ("tie_embeddings", True),
    "mlp_dropout": ("dropout", 0.0),
    "embedding_dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    **unused("classifier_dropout", "deterministic_flash_attn", "reference_compile"),
    **unused("repad_logits_with_grad", "sparse_prediction", "sparse_pred_ignore_index"),
    **unused("initializer_cutoff_factor", "layer_norm_eps", "position_embedding_type"),
}
QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    # the first layer attends to the embeddings, which are normalised already
    "attn_norm.weight": Rule(None, "attn_norm/scale", first_layer=1),
    "attn_norm.bias": Rule(None, "attn_norm/bias", first_layer=1),
    "attn.Wqkv.weight": Rule("(3 N H) D -> D N H", *QUERY_KEY_VALUE),
    "attn.Wqkv.bias": Rule("(3 N H) -> N H", *(f"{name}_bias" for name in QUERY_KEY_VALUE)),
    **linear("attn.Wo", "attn/out"),
    **norm("mlp_norm", "mlp_norm"),
    "mlp.Wi.weight": Rule("(2 F) D -> D F", "mlp/gate", "mlp/up"),
    "mlp.Wi.bias": Rule("(2 F) -> F", "mlp/gate_bias", "mlp/up_bias"),
    **linear("mlp.Wo", "mlp/down"),
}
POOLED = {
    **dense("head.dense", "head/pooler"),
    **norm("head.norm", "head/norm"),
    **dense("classifier", "head/classes"),
}
MASKED_LM = {
    **dense("head.dense", "head/transform"),
    **norm("head.norm", "head/norm"),
    "decoder.bias": "head/unembedding_bias",
    "decoder.weight": "head/unembedding",
}
MODERNBERT = Family(
    model_type="modernbert",
    config=EncoderConfig,
    base="ModernBertModel",
    prefix="model.",
    fields=FIELDS,
    style=dict(
        norm_place="pre",
        first_attn_norm=False,
        extra_norms=("embedding", "final"),
        biases=(),
        positions="rotary",
        activation="geglu",
        num_token_types=0,
        head_activation="gelu",
        head_norm=True,
    ),
    table={
        "embeddings.tok_embeddings.weight": "backbone/embed/token/embedding",
        **norm("embeddings.norm", "backbone/embed/norm"),
        **within("layers.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("final_norm", "backbone/final_norm"),
    },
    heads={
        "ModernBertForMaskedLM": Head("masked_lm", MASKED_LM),
        "ModernBertForSequenceClassification": Head("classifier", POOLED),
        "ModernBertForTokenClassification": Head("tokens", POOLED),
        "ModernBertForQuestionAnswering": Head("span", POOLED),
    },
)
