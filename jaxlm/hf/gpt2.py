"""GPT-2 (Radford et al. 2019). Its Conv1D is [in, out], as ours: nothing is transposed but what is split in heads."""

from __future__ import annotations

from typing import Any

from jaxlm.config import DecoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields, activation_name
from jaxlm.hf.table import Rule, norm, within

QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    **norm("ln_1", "attn_norm"),
    "attn.c_attn.weight": Rule("D (3 N H) -> D N H", *QUERY_KEY_VALUE),
    "attn.c_attn.bias": Rule("(3 N H) -> N H", *(f"{x}_bias" for x in QUERY_KEY_VALUE)),
    "attn.c_proj.weight": Rule("(N H) D -> N H D", "attn/out"),
    "attn.c_proj.bias": "attn/out_bias",
    **norm("ln_2", "mlp_norm"),
    "mlp.c_fc.weight": Rule("D F -> D F", "mlp/up"),
    "mlp.c_fc.bias": "mlp/up_bias",
    "mlp.c_proj.weight": Rule("F D -> F D", "mlp/down"),
    "mlp.c_proj.bias": "mlp/down_bias",
}


def _read(f: Fields) -> DecoderConfig:
    f.only("scale_attn_weights", True)
    f.only("scale_attn_by_inverse_layer_idx", False)
    f.only("add_cross_attention", False)
    f.only("reorder_and_upcast_attn", False, True)  # of the order of operations in half precision
    f.skip("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    f.skip("summary_type", "summary_use_proj", "n_ctx", "classifier_dropout")
    dropout = f("resid_pdrop", 0.1)
    if f("embd_pdrop", 0.1) != dropout:
        raise f.unsupported("embd_pdrop", f("embd_pdrop"), f"the value of resid_pdrop, {dropout}")
    dim = f.integer("n_embd", 768)
    return DecoderConfig(
        vocab_size=f.integer("vocab_size", 50257),
        dim=dim,
        num_layers=f.integer("n_layer", 12),
        num_heads=f.integer("n_head", 12),
        mlp_dim=f.integer("n_inner", 4 * dim),
        max_len=f.integer("n_positions", 1024),
        norm_eps=f("layer_norm_epsilon", 1e-5),
        activation=f.activation("activation_function", "gelu_new"),
        tie_embeddings=f("tie_word_embeddings", True),
        dropout=dropout,
        attention_dropout=f("attn_pdrop", 0.1),
        init_std=f("initializer_range", 0.02),
    )


def _write(c: DecoderConfig) -> dict[str, Any]:
    return dict(
        vocab_size=c.vocab_size,
        n_embd=c.dim,
        n_layer=c.num_layers,
        n_head=c.num_heads,
        n_inner=c.mlp_width,
        n_positions=c.max_len,
        n_ctx=c.max_len,
        layer_norm_epsilon=c.norm_eps,
        # the name that older readers look for in a GPT-2
        activation_function=activation_name(c.activation_function).replace(
            "gelu_pytorch_tanh", "gelu_new"
        ),
        tie_word_embeddings=c.tie_embeddings,
        resid_pdrop=c.dropout,
        embd_pdrop=c.dropout,
        attn_pdrop=c.attention_dropout,
        initializer_range=c.init_std,
    )


GPT2 = Family(
    model_type="gpt2",
    config=DecoderConfig,
    base="GPT2Model",
    prefix="transformer.",
    table={
        "wte.weight": "backbone/embed/token/embedding",
        "wpe.weight": "backbone/embed/position_embedding",
        **within("h.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("ln_f", "backbone/final_norm"),
    },
    heads={
        "GPT2LMHeadModel": Head("causal_lm", {"lm_head.weight": "head/unembedding"}),
        "GPT2ForSequenceClassification": Head(
            "classifier", {"score.weight": "head/classes/kernel"}
        ),
    },
    read=_read,
    write=_write,
    # the causal mask, once stored with every layer
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
)
