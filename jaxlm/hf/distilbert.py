"""DistilBERT (Sanh et al. 2019, 1910.01108): BERT without token types, with different tensor names."""

from __future__ import annotations

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import ALIASES, CLASSES, EMBEDDINGS, SPAN
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, activation, fixed, unused
from jaxlm.hf.table import attention, dense, linear, norm, within

FIELDS: FieldMap = {
    "vocab_size": "vocab_size",
    "dim": "dim",
    "n_layers": "num_layers",
    "n_heads": "num_heads",
    "hidden_dim": "mlp_dim",
    "max_position_embeddings": ("max_len", 512),
    "activation": activation("gelu"),
    "tie_word_embeddings": ("tie_embeddings", True),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "initializer_range": ("init_std", 0.02),
    # initial values of the table; no effect on a trained model
    "sinusoidal_pos_embds": fixed(False, True, write=True),
    **unused("qa_dropout", "seq_classif_dropout"),
}
LAYER = {
    **attention("attention.{}_lin", "attn"),
    **norm("sa_layer_norm", "attn_norm"),
    **linear("ffn.lin1", "mlp/up"),
    **linear("ffn.lin2", "mlp/down"),
    **norm("output_layer_norm", "mlp_norm"),
}
MASKED_LM = {
    **dense("vocab_transform", "head/transform"),
    **norm("vocab_layer_norm", "head/norm"),
    "vocab_projector.bias": "head/unembedding_bias",
    "vocab_projector.weight": "head/unembedding",
}
DISTILBERT = Family(
    model_type="distilbert",
    config=EncoderConfig,
    base="DistilBertModel",
    prefix="distilbert.",
    fields=FIELDS,
    style=dict(num_token_types=0, head_activation="relu"),
    table={
        **EMBEDDINGS,
        **within("transformer.layer.{i}.", "backbone/stack/blocks/", LAYER),
    },
    heads={
        "DistilBertForMaskedLM": Head("masked_lm", MASKED_LM),
        "DistilBertForSequenceClassification": Head(
            "classifier", {**dense("pre_classifier", "head/pooler"), **CLASSES}
        ),
        "DistilBertForTokenClassification": Head("tokens", CLASSES),
        "DistilBertForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES,
    ignored=(r"embeddings\.position_ids",),
)
