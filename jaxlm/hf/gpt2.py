"""GPT-2 (Radford et al. 2019). Its kernels are [in, out], as in jaxlm; only those split into heads are rearranged."""

from __future__ import annotations

from jaxlm.config import DecoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, activation, fixed, unused, written
from jaxlm.hf.table import Rule, dense, norm, within

# shared by GPT-2 and GPT-Neo
SHARED: FieldMap = {
    "vocab_size": ("vocab_size", 50257),
    "layer_norm_epsilon": ("norm_eps", 1e-5),
    "activation_function": activation("gelu_new"),
    "tie_word_embeddings": ("tie_embeddings", True),
    "initializer_range": ("init_std", 0.02),
}
EMBEDDINGS = {
    "wte.weight": "backbone/embed/token/embedding",
    "wpe.weight": "backbone/embed/position_embedding",
    **norm("ln_f", "backbone/final_norm"),
}
NORMS = norm("ln_1", "attn_norm") | norm("ln_2", "mlp_norm")
FIELDS: FieldMap = SHARED | {
    "n_embd": ("dim", 768),
    "n_layer": ("num_layers", 12),
    "n_head": ("num_heads", 12),
    "n_inner": ("mlp_dim", lambda ours: 4 * ours["dim"]),
    "n_positions": ("max_len", 1024),
    "n_ctx": written("max_len"),
    "resid_pdrop": ("dropout", 0.1),
    "embd_pdrop": ("embedding_dropout", 0.1),
    "attn_pdrop": ("attention_dropout", 0.1),
    "scale_attn_weights": fixed(True),
    "scale_attn_by_inverse_layer_idx": fixed(False),
    "add_cross_attention": fixed(False),
    "reorder_and_upcast_attn": fixed(
        False, True
    ),  # changes only the order of operations in half precision
    **unused("summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
    **unused("summary_type", "summary_use_proj", "classifier_dropout"),
}
QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    **NORMS,
    "attn.c_attn.weight": Rule("D (3 N H) -> D N H", *QUERY_KEY_VALUE),
    "attn.c_attn.bias": Rule("(3 N H) -> N H", *(f"{x}_bias" for x in QUERY_KEY_VALUE)),
    "attn.c_proj.weight": Rule("(N H) D -> N H D", "attn/out"),
    "attn.c_proj.bias": "attn/out_bias",
    "mlp.c_fc.weight": Rule("D F -> D F", "mlp/up"),
    "mlp.c_fc.bias": "mlp/up_bias",
    "mlp.c_proj.weight": Rule("F D -> F D", "mlp/down"),
    "mlp.c_proj.bias": "mlp/down_bias",
}
GPT2 = Family(
    model_type="gpt2",
    config=DecoderConfig,
    base="GPT2Model",
    prefix="transformer.",
    fields=FIELDS,
    table=EMBEDDINGS | within("h.{i}.", "backbone/stack/blocks/", LAYER),
    heads={
        "GPT2LMHeadModel": Head("causal_lm", {"lm_head.weight": "head/unembedding"}),
        "GPT2ForSequenceClassification": Head(
            "classifier", {"score.weight": "head/classes/kernel"}
        ),
        "GPT2ForTokenClassification": Head("tokens", dense("classifier", "head/classes")),
        "GPT2ForQuestionAnswering": Head("span", dense("qa_outputs", "head/classes")),
    },
    # the causal mask, stored with every layer in old files
    ignored=(r"h\.\d+\.attn\.(masked_)?bias",),
)
