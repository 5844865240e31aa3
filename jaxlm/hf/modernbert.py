"""ModernBERT (Warner et al. 2024, 2412.13663): rotary positions, gated MLPs, local and global attention."""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderConfig
from jaxlm.hf import fields
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields
from jaxlm.hf.table import Rule, dense, linear, norm, within

QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    # the first layer attends to the embeddings, which have been normed
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


def _read(f: Fields) -> EncoderConfig:
    f.only("decoder_bias", True)
    f.skip(
        "classifier_dropout",
        "deterministic_flash_attn",
        "reference_compile",
        "repad_logits_with_grad",
    )
    f.skip("sparse_prediction", "sparse_pred_ignore_index", "initializer_cutoff_factor")
    f.skip("layer_norm_eps", "position_embedding_type")
    f.only("classifier_pooling", "cls", "mean")
    activation = f.activation("hidden_activation", "gelu")
    if f.activation("classifier_activation", "gelu") != "gelu" or activation != "gelu":
        raise f.unsupported(
            "classifier_activation",
            f("classifier_activation", "gelu"),
            "gelu, as hidden_activation",
        )
    theta, local_theta, scaling = fields.read_rope_by_layer(
        f,
        theta=160_000.0,
        local_theta=10_000.0,
        old_theta="global_rope_theta",
        old_local_theta="local_rope_theta",
    )
    every = f.integer("global_attn_every_n_layers", 3)
    pattern: Any = f.layer_pattern() or ("global", *["local"] * (every - 1))
    bias = f("attention_bias", False)
    dropout = f("mlp_dropout", 0.0)
    if f("embedding_dropout", 0.0) != dropout:
        raise f.unsupported("embedding_dropout", f("embedding_dropout", 0.0), "that of mlp_dropout")
    return EncoderConfig(
        vocab_size=f.integer("vocab_size"),
        dim=f.integer("hidden_size"),
        num_layers=f.integer("num_hidden_layers"),
        num_heads=f.integer("num_attention_heads"),
        mlp_dim=f.integer("intermediate_size"),
        max_len=f.integer("max_position_embeddings", 8192),
        norm_place="pre",
        norm_eps=f("norm_eps", 1e-5),
        first_attn_norm=False,
        extra_norms=("embedding", "final"),
        positions="rotary",
        rope_theta=theta,
        rope_local_theta=local_theta,
        rope_scaling=scaling,
        activation=fields.gated(activation),
        biases=fields.biases(
            norm=f("norm_bias", False), qkv=bias, attn_out=bias, mlp=f("mlp_bias", False)
        ),
        # so many places to each side, and its own
        window=f.integer("local_attention", 128) // 2 + 1,
        layer_pattern=pattern,
        num_token_types=0,
        tie_embeddings=f("tie_word_embeddings", True),
        head_activation="gelu",
        head_bias=f("classifier_bias", False),
        head_norm=True,
        dropout=dropout,
        attention_dropout=f("attention_dropout", 0.0),
        init_std=f("initializer_range", 0.02),
    )


def _write(c: EncoderConfig) -> dict[str, Any]:
    local = c.rope_theta if c.rope_local_theta is None else c.rope_local_theta
    kinds = {True: "sliding_attention", False: "full_attention"}
    return fields.write_rope_by_layer(c.rope_theta, local, c.rope_scaling) | dict(
        vocab_size=c.vocab_size,
        hidden_size=c.dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        intermediate_size=c.mlp_width,
        max_position_embeddings=c.max_len,
        norm_eps=c.norm_eps,
        norm_bias="norm" in c.biases,
        hidden_activation=fields.activation_name(c.activation_function),
        classifier_activation=fields.activation_name(c.activation_function),
        classifier_bias=c.head_bias,
        attention_bias="qkv" in c.biases,
        mlp_bias="mlp" in c.biases,
        global_rope_theta=c.rope_theta,
        local_rope_theta=local,
        local_attention=2 * ((c.window or c.max_len) - 1),
        layer_types=[kinds[is_local] for is_local in c.local_layers],
        tie_word_embeddings=c.tie_embeddings,
        embedding_dropout=c.dropout,
        mlp_dropout=c.dropout,
        attention_dropout=c.attention_dropout,
        initializer_range=c.init_std,
    )


MODERNBERT = Family(
    model_type="modernbert",
    config=EncoderConfig,
    base="ModernBertModel",
    prefix="model.",
    table={
        "embeddings.tok_embeddings.weight": "backbone/embed/token/embedding",
        **norm("embeddings.norm", "backbone/embed/norm"),
        **within("layers.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("final_norm", "backbone/final_norm"),
    },
    heads={
        "ModernBertForMaskedLM": Head(
            "masked_lm",
            {
                **dense("head.dense", "head/transform"),
                **norm("head.norm", "head/norm"),
                "decoder.bias": "head/unembedding_bias",
                "decoder.weight": "head/unembedding",
            },
        ),
        "ModernBertForSequenceClassification": Head("classifier", POOLED),
        "ModernBertForTokenClassification": Head("tokens", POOLED),
        "ModernBertForQuestionAnswering": Head("span", POOLED),
    },
    read=_read,
    write=_write,
)
