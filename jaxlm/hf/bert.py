"""BERT (Devlin et al. 2018, 1810.04805) and those with its blocks: RoBERTa, XLM-R, DistilBERT, ELECTRA."""

from __future__ import annotations

import dataclasses
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
TWO_LAYERS = {
    **dense("classifier.dense", "head/pooler"),
    **dense("classifier.out_proj", "head/classes"),
}
ROBERTA_LM = {
    **dense("lm_head.dense", "head/transform"),
    **norm("lm_head.layer_norm", "head/norm"),
    "lm_head.bias": "head/unembedding_bias",
    "lm_head.decoder.weight": "head/unembedding",
}
# what files of the first years call a norm's parameters
ALIASES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def read_shared(f: Fields, **traits: Any) -> EncoderConfig:
    """The fields that BERT, RoBERTa and ELECTRA have in common."""
    f.only("position_embedding_type", "absolute")
    f.only("is_decoder", False)
    f.only("add_cross_attention", False)
    f.skip("classifier_dropout", "pooler_fc_size", "pooler_num_attention_heads", "pooler_type")
    f.skip("pooler_num_fc_layers", "pooler_size_per_head")
    if not f.integer("type_vocab_size", 2):
        raise f.unsupported("type_vocab_size", 0, "1 or more")
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
        hidden_act=activation_name(c.activation_function),
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


def _read_roberta(f: Fields, **traits: Any) -> EncoderConfig:
    """Positions begin after the padding token's: the table has rows for as many before the first."""
    offset = f.integer("pad_token_id", 1) + 1
    return read_shared(
        f,
        max_len=f.integer("max_position_embeddings") - offset,
        position_offset=offset,
        **traits,
    )


def _write_roberta(c: EncoderConfig) -> dict[str, Any]:
    return write_shared(c) | dict(
        max_position_embeddings=c.max_len + c.position_offset, pad_token_id=c.position_offset - 1
    )


def _read_prelayernorm(f: Fields) -> EncoderConfig:
    return _read_roberta(f, norm_place="pre", extra_norms=("embedding", "final"))


def _read_distilbert(f: Fields) -> EncoderConfig:
    f.only("sinusoidal_pos_embds", False, True)  # how the table began, before it was trained
    f.skip("qa_dropout", "seq_classif_dropout")
    return EncoderConfig(
        vocab_size=f.integer("vocab_size"),
        dim=f.integer("dim"),
        num_layers=f.integer("n_layers"),
        num_heads=f.integer("n_heads"),
        mlp_dim=f.integer("hidden_dim"),
        max_len=f.integer("max_position_embeddings", 512),
        activation=f.activation("activation", "gelu"),
        num_token_types=0,
        head_activation="relu",
        tie_embeddings=f("tie_word_embeddings", True),
        dropout=f("dropout", 0.1),
        attention_dropout=f("attention_dropout", 0.1),
        init_std=f("initializer_range", 0.02),
    )


def _write_distilbert(c: EncoderConfig) -> dict[str, Any]:
    return dict(
        vocab_size=c.vocab_size,
        dim=c.dim,
        n_layers=c.num_layers,
        n_heads=c.num_heads,
        hidden_dim=c.mlp_width,
        max_position_embeddings=c.max_len,
        activation=activation_name(c.activation_function),
        sinusoidal_pos_embds=False,
        tie_word_embeddings=c.tie_embeddings,
        dropout=c.dropout,
        attention_dropout=c.attention_dropout,
        initializer_range=c.init_std,
    )


def _read_electra(f: Fields) -> EncoderConfig:
    f.skip("summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj")
    f.skip("generator_hidden_size", "generator_num_hidden_layers")
    dim = f.integer("hidden_size")
    width = f.integer("embedding_size", 128)
    return read_shared(
        f,
        max_len=f.integer("max_position_embeddings"),
        embedding_dim=None if width == dim else width,
        head_activation="gelu",
    )


def _write_electra(c: EncoderConfig) -> dict[str, Any]:
    return write_shared(c) | dict(
        max_position_embeddings=c.max_len, embedding_size=c.embedding_width
    )


BERT = Family(
    model_type="bert",
    config=EncoderConfig,
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

ROBERTA = Family(
    model_type="roberta",
    config=EncoderConfig,
    base="RobertaModel",
    prefix="roberta.",
    table=BACKBONE,
    heads={
        "RobertaForMaskedLM": Head("masked_lm", ROBERTA_LM),
        "RobertaForSequenceClassification": Head("classifier", TWO_LAYERS),
        "RobertaForTokenClassification": Head("tokens", CLASSES),
        "RobertaForQuestionAnswering": Head("span", SPAN),
    },
    read=_read_roberta,
    write=_write_roberta,
    aliases=ALIASES,
    ignored=(
        r"(roberta\.)?embeddings\.position_ids",
        r"(roberta\.)?pooler\.dense\.(weight|bias)",
        r"lm_head\.decoder\.bias",
    ),
)

XLM_ROBERTA = dataclasses.replace(
    ROBERTA,
    model_type="xlm-roberta",
    base="XLMRobertaModel",
    heads={f"XLM{name}": head for name, head in ROBERTA.heads.items()},
)

PRELAYERNORM = dataclasses.replace(
    ROBERTA,
    model_type="roberta-prelayernorm",
    base="RobertaPreLayerNormModel",
    prefix="roberta_prelayernorm.",
    table={
        **EMBEDDINGS,
        **within(
            "encoder.layer.{i}.",
            "backbone/stack/blocks/",
            {name: rule for name, rule in LAYER.items() if "LayerNorm" not in name}
            | norm("attention.LayerNorm", "attn_norm")
            | norm("intermediate.LayerNorm", "mlp_norm"),
        ),
        **norm("LayerNorm", "backbone/final_norm"),
    },
    heads={
        name.replace("Roberta", "RobertaPreLayerNorm"): head for name, head in ROBERTA.heads.items()
    },
    read=_read_prelayernorm,
    ignored=tuple(x.replace("roberta", "roberta_prelayernorm") for x in ROBERTA.ignored),
)

DISTILBERT = Family(
    model_type="distilbert",
    config=EncoderConfig,
    base="DistilBertModel",
    prefix="distilbert.",
    table={
        **EMBEDDINGS,
        **within(
            "transformer.layer.{i}.",
            "backbone/stack/blocks/",
            {
                **linear("attention.q_lin", "attn/query"),
                **linear("attention.k_lin", "attn/key"),
                **linear("attention.v_lin", "attn/value"),
                **linear("attention.out_lin", "attn/out"),
                **norm("sa_layer_norm", "attn_norm"),
                **linear("ffn.lin1", "mlp/up"),
                **linear("ffn.lin2", "mlp/down"),
                **norm("output_layer_norm", "mlp_norm"),
            },
        ),
    },
    heads={
        "DistilBertForMaskedLM": Head(
            "masked_lm",
            {
                **dense("vocab_transform", "head/transform"),
                **norm("vocab_layer_norm", "head/norm"),
                "vocab_projector.bias": "head/unembedding_bias",
                "vocab_projector.weight": "head/unembedding",
            },
        ),
        "DistilBertForSequenceClassification": Head(
            "classifier", {**dense("pre_classifier", "head/pooler"), **CLASSES}
        ),
        "DistilBertForTokenClassification": Head("tokens", CLASSES),
        "DistilBertForQuestionAnswering": Head("span", SPAN),
    },
    read=_read_distilbert,
    write=_write_distilbert,
    aliases=ALIASES,
    ignored=(r"(distilbert\.)?embeddings\.position_ids",),
)

ELECTRA = Family(
    model_type="electra",
    config=EncoderConfig,
    base="ElectraModel",
    prefix="electra.",
    table={**BACKBONE, **linear("embeddings_project", "backbone/embed/project")},
    heads={
        "ElectraForMaskedLM": Head(
            "masked_lm",
            {
                **dense("generator_predictions.dense", "head/transform"),
                **norm("generator_predictions.LayerNorm", "head/norm"),
                "generator_lm_head.bias": "head/unembedding_bias",
                "generator_lm_head.weight": "head/unembedding",
            },
        ),
        "ElectraForPreTraining": Head(
            "detector",
            {
                **dense("discriminator_predictions.dense", "head/pooler"),
                **dense("discriminator_predictions.dense_prediction", "head/classes"),
            },
        ),
        "ElectraForSequenceClassification": Head("classifier", TWO_LAYERS),
        "ElectraForTokenClassification": Head("tokens", CLASSES),
        "ElectraForQuestionAnswering": Head("span", SPAN),
    },
    read=_read_electra,
    write=_write_electra,
    aliases=ALIASES,
    ignored=(r"(electra\.)?embeddings\.position_ids",),
)
