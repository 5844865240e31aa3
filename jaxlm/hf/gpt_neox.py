"""GPT-NeoX (Black et al. 2022, 2204.06745) and Pythia: rotary positions in part of each head, parallel blocks."""

from __future__ import annotations

from jaxlm.hf.family import decoder
from jaxlm.hf.fields import FieldMap, activation, unused
from jaxlm.hf.rope import rope
from jaxlm.hf.table import Rule, Table, linear, norm, within

FIELDS: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": ("max_len", 2048),
    "layer_norm_eps": ("norm_eps", 1e-5),
    **rope(fraction=0.25, older=("rotary_emb_base", "rotary_pct")),
    "hidden_act": activation("gelu"),
    "attention_bias": (("biases.qkv", "biases.attn_out"), True),
    "use_parallel_residual": ("parallel_block", True),
    "tie_word_embeddings": ("tie_embeddings", False),
    "hidden_dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    **unused("classifier_dropout", "use_fused_kernels"),
}
QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")


def layer(attention: str) -> Table:
    """The tensors of a layer; `attention` is the name of its attention."""
    return {
        **norm("input_layernorm", "attn_norm"),
        # query, key and value are interleaved per head
        f"{attention}.query_key_value.weight": Rule("(N 3 H) D -> D N H", *QUERY_KEY_VALUE),
        f"{attention}.query_key_value.bias": Rule(
            "(N 3 H) -> N H", *(f"{name}_bias" for name in QUERY_KEY_VALUE)
        ),
        **linear(f"{attention}.dense", "attn/out"),
        **norm("post_attention_layernorm", "mlp_norm"),
        **linear("mlp.dense_h_to_4h", "mlp/up"),
        **linear("mlp.dense_4h_to_h", "mlp/down"),
    }


GPT_NEOX = decoder(
    "gpt_neox",
    "GPTNeoX",
    unembedding="embed_out",
    tokens="classifier",
    span=True,
    prefix="gpt_neox.",
    fields=FIELDS,
    style=dict(positions="rotary"),
    table={
        "embed_in.weight": "backbone/embed/token/embedding",
        **within("layers.{i}.", "backbone/stack/blocks/", layer("attention")),
        **norm("final_layer_norm", "backbone/final_norm"),
    },
    # the name that transformers 5 writes if the output table is not tied
    aliases={"lm_head.weight": "embed_out.weight"},
    ignored=(
        r"layers\.\d+\.attention\.(masked_)?bias",
        r"layers\.\d+\.attention\.rotary_emb\.inv_freq",
    ),
)
