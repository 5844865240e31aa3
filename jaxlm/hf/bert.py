"""BERT (Devlin et al. 2018, 1810.04805) and those that share its blocks."""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields, activation_name
from jaxlm.hf.table import dense, linear, norm, within

LAYER = {
    **linear("attention.self.query", "attn/query"),
    **linear("attention.self.key", "attn/key"),
    **linear("attention.self.value", "attn/value"),
    **linear("attention.output.dense", "attn/out"),
    **norm("attention.output.LayerNorm", "attn_norm"),
    **linear("intermediate.dense", "mlp/up"),
    **linear("output.dense", "mlp/down"),
    **norm("output.LayerNorm", "mlp_norm"),
}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "backbone/embed/token/embedding",
    "embeddings.position_embeddings.weight": "backbone/embed/position_embedding",
    "embeddings.token_type_embeddings.weight": "backbone/embed/type_embedding",
    **norm("embeddings.LayerNorm", "backbone/embed/norm"),
}
BACKBONE = {
    **EMBEDDINGS,
    **within("encoder.layer.{i}.", "backbone/stack/blocks/", LAYER),
}
CLASSES = dense("classifier", "head/classes")
SPAN = dense("qa_outputs", "head/classes")
# what files of the first years call a norm's parameters
ALIASES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def read_shared(f: Fields, **traits: Any) -> EncoderConfig:
    """The fields that BERT, RoBERTa and ELECTRA have in common."""
    f.only("position_embedding_type", "absolute")
    f.only("is_decoder", False)
    f.only("add_cross_attention", False)
    f.skip("classifier_dropout", "pooler_fc_size", "pooler_num_attention_heads", "pooler_type")
    f.skip("pooler_num_fc_layers", "pooler_size_per_head")
    return EncoderConfig(
        vocab_size=f.integer("vocab_size"),
        dim=f.integer("hidden_size"),
        num_layers=f.integer("num_hidden_layers"),
        num_heads=f.integer("num_attention_heads"),
        mlp_dim=f.integer("intermediate_size"),
        norm_eps=f("layer_norm_eps", 1e-12),
        activation=f.activation("hidden_act", "gelu"),
        num_token_types=f.integer("type_vocab_size", 2),
        tie_embeddings=f("tie_word_embeddings", True),
        dropout=f("hidden_dropout_prob", 0.1),
        attention_dropout=f("attention_probs_dropout_prob", 0.1),
        init_std=f("initializer_range", 0.02),
        **traits,
    )


def write_shared(c: EncoderConfig) -> dict[str, Any]:
    """The inverse of `read_shared`."""
    return dict(
        vocab_size=c.vocab_size,
        hidden_size=c.dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        intermediate_size=c.mlp_width,
        layer_norm_eps=c.norm_eps,
        hidden_act=activation_name(c.activation),
        type_vocab_size=c.num_token_types,
        tie_word_embeddings=c.tie_embeddings,
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=c.attention_dropout,
        initializer_range=c.init_std,
        position_embedding_type="absolute",
    )


def _read_bert(f: Fields) -> EncoderConfig:
    return read_shared(f, max_len=f.integer("max_position_embeddings"))


def _write_bert(c: EncoderConfig) -> dict[str, Any]:
    return write_shared(c) | dict(max_position_embeddings=c.max_len)


BERT = Family(
    model_type="bert",
    base="BertModel",
    prefix="bert.",
    table=BACKBONE,
    heads={
        "BertForMaskedLM": Head(
            "masked_lm",
            {
                **dense("cls.predictions.transform.dense", "head/transform"),
                **norm("cls.predictions.transform.LayerNorm", "head/norm"),
                "cls.predictions.bias": "head/unembedding_bias",
                "cls.predictions.decoder.weight": "head/unembedding",
            },
        ),
        "BertForSequenceClassification": Head(
            "classifier", {**dense("bert.pooler.dense", "head/pooler"), **CLASSES}
        ),
        "BertForTokenClassification": Head("tokens", CLASSES),
        "BertForQuestionAnswering": Head("span", SPAN),
    },
    read=_read_bert,
    write=_write_bert,
    aliases=ALIASES,
    ignored=(
        r"(bert\.)?embeddings\.position_ids",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
        r"cls\.predictions\.decoder\.bias",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
)
