"""GPT-NeoX (Black et al. 2022, 2204.06745) and Pythia: rotary positions on a part of each head, parallel blocks."""

from __future__ import annotations

from typing import Any

from jaxlm.config import DecoderConfig
from jaxlm.hf import fields
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields
from jaxlm.hf.table import Rule, linear, norm, within

QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    **norm("input_layernorm", "attn_norm"),
    # query, key and value of each head stand together
    "attention.query_key_value.weight": Rule("(N 3 H) D -> D N H", *QUERY_KEY_VALUE),
    "attention.query_key_value.bias": Rule(
        "(N 3 H) -> N H", *(f"{name}_bias" for name in QUERY_KEY_VALUE)
    ),
    **linear("attention.dense", "attn/out"),
    **norm("post_attention_layernorm", "mlp_norm"),
    **linear("mlp.dense_h_to_4h", "mlp/up"),
    **linear("mlp.dense_4h_to_h", "mlp/down"),
}


def _read(f: Fields) -> DecoderConfig:
    bias = f("attention_bias", True)
    old = dict(theta=f("rotary_emb_base", 10_000.0), fraction=f("rotary_pct", 0.25))
    theta, fraction, scaling = fields.read_rope(f, **old)
    f.skip("classifier_dropout", "use_fused_kernels")
    return DecoderConfig(
        vocab_size=f.integer("vocab_size"),
        dim=f.integer("hidden_size"),
        num_layers=f.integer("num_hidden_layers"),
        num_heads=f.integer("num_attention_heads"),
        mlp_dim=f.integer("intermediate_size"),
        max_len=f.integer("max_position_embeddings", 2048),
        norm_eps=f("layer_norm_eps", 1e-5),
        positions="rotary",
        rope_theta=theta,
        rope_fraction=fraction,
        rope_scaling=scaling,
        activation=f.activation("hidden_act", "gelu"),
        biases=fields.biases(norm=True, qkv=bias, attn_out=bias, mlp=True),
        parallel_block=f("use_parallel_residual", True),
        tie_embeddings=f("tie_word_embeddings", False),
        dropout=f("hidden_dropout", 0.0),
        attention_dropout=f("attention_dropout", 0.0),
        init_std=f("initializer_range", 0.02),
    )


def _write(c: DecoderConfig) -> dict[str, Any]:
    rope = fields.write_rope(c.rope_theta, c.rope_scaling, c.rope_fraction)
    # always written: absent means a quarter
    rope["rope_parameters"]["partial_rotary_factor"] = c.rope_fraction
    return rope | dict(
        vocab_size=c.vocab_size,
        hidden_size=c.dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        intermediate_size=c.mlp_width,
        max_position_embeddings=c.max_len,
        layer_norm_eps=c.norm_eps,
        rotary_emb_base=c.rope_theta,
        rotary_pct=c.rope_fraction,
        hidden_act=fields.activation_name(c.activation_function),
        attention_bias="qkv" in c.biases,
        use_parallel_residual=c.parallel_block,
        tie_word_embeddings=c.tie_embeddings,
        hidden_dropout=c.dropout,
        attention_dropout=c.attention_dropout,
        initializer_range=c.init_std,
    )


GPT_NEOX = Family(
    model_type="gpt_neox",
    config=DecoderConfig,
    base="GPTNeoXModel",
    prefix="gpt_neox.",
    table={
        "embed_in.weight": "backbone/embed/token/embedding",
        **within("layers.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("final_layer_norm", "backbone/final_norm"),
    },
    heads={
        "GPTNeoXForCausalLM": Head("causal_lm", {"embed_out.weight": "head/unembedding"}),
        "GPTNeoXForSequenceClassification": Head(
            "classifier", {"score.weight": "head/classes/kernel"}
        ),
    },
    read=_read,
    write=_write,
    # what transformers 5 writes when the output table is not tied
    aliases={"lm_head.weight": "embed_out.weight"},
    ignored=(
        r"(gpt_neox\.)?layers\.\d+\.attention\.(masked_)?bias",
        r"(gpt_neox\.)?layers\.\d+\.attention\.rotary_emb\.inv_freq",
    ),
)
