"""BERT (Devlin et al. 2018, 1810.04805) and RoBERTa (1907.11692), XLM-R and CamemBERT, which have the same layout."""

from __future__ import annotations

import dataclasses

from jaxlm.config import EncoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, activation, field, fixed, unused
from jaxlm.hf.table import Table, dense, linear, norm, rename, within

# shared by BERT, RoBERTa and ELECTRA
SHARED: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "layer_norm_eps": ("norm_eps", 1e-12),
    "hidden_act": activation("gelu"),
    "type_vocab_size": field("num_token_types", 2, least=1),
    "tie_word_embeddings": ("tie_embeddings", True),
    "hidden_dropout_prob": ("dropout", 0.1),
    "attention_probs_dropout_prob": ("attention_dropout", 0.1),
    "initializer_range": ("init_std", 0.02),
    "position_embedding_type": fixed("absolute", write=True),
    "is_decoder": fixed(False),
    "add_cross_attention": fixed(False),
    **unused("classifier_dropout", "pooler_fc_size", "pooler_num_attention_heads", "pooler_type"),
    **unused("pooler_num_fc_layers", "pooler_size_per_head"),
}
# the first position is pad_token_id + 1; the rows of the table before it are unused
ROBERTA_FIELDS: FieldMap = SHARED | {
    "pad_token_id": field(
        "position_offset",
        1,
        read=lambda pad, ours: pad + 1,
        write=lambda offset, ours: offset - 1,
    ),
    "max_position_embeddings": field(
        "max_len",
        read=lambda rows, ours: rows - ours["position_offset"],
        write=lambda length, ours: length + ours["position_offset"],
    ),
}

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
PRE_NORM_BACKBONE = {
    **EMBEDDINGS,
    **within(
        "encoder.layer.{i}.",
        "backbone/stack/blocks/",
        {name: rule for name, rule in LAYER.items() if "LayerNorm" not in name}
        | norm("attention.LayerNorm", "attn_norm")
        | norm("intermediate.LayerNorm", "mlp_norm"),
    ),
    **norm("LayerNorm", "backbone/final_norm"),
}

CLASSES = dense("classifier", "head/classes")
SPAN = dense("qa_outputs", "head/classes")
TWO_LAYERS = {
    **dense("classifier.dense", "head/pooler"),
    **dense("classifier.out_proj", "head/classes"),
}
BERT_LM = {
    **dense("cls.predictions.transform.dense", "head/transform"),
    **norm("cls.predictions.transform.LayerNorm", "head/norm"),
    "cls.predictions.bias": "head/unembedding_bias",
    "cls.predictions.decoder.weight": "head/unembedding",
}
ROBERTA_LM = {
    **dense("lm_head.dense", "head/transform"),
    **norm("lm_head.layer_norm", "head/norm"),
    "lm_head.bias": "head/unembedding_bias",
    "lm_head.decoder.weight": "head/unembedding",
}


def with_pairs(lm: Table, pooler: str, pairs: str) -> Head:
    """The class with a head for masked tokens, given by its table, and one for pairs of texts."""
    table = {name: rename(rule, "head/", "head/lm/") for name, rule in lm.items()}
    return Head("pairs", {**table, **dense(pooler, "head/pooler"), **dense(pairs, "head/pair")})


# names of a norm's parameters in old files
ALIASES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def roberta_heads(name: str) -> dict[str, Head]:
    """RoBERTa's classes with heads, for a family whose class names begin with `name`."""
    return {
        f"{name}ForMaskedLM": Head("masked_lm", ROBERTA_LM),
        f"{name}ForSequenceClassification": Head("classifier", TWO_LAYERS),
        f"{name}ForTokenClassification": Head("tokens", CLASSES),
        f"{name}ForQuestionAnswering": Head("span", SPAN),
    }


BERT = Family(
    model_type="bert",
    config=EncoderConfig,
    base="BertModel",
    prefix="bert.",
    fields=SHARED | {"max_position_embeddings": "max_len"},
    table=BACKBONE,
    heads={
        "BertForMaskedLM": Head("masked_lm", BERT_LM),
        "BertForPreTraining": with_pairs(BERT_LM, "bert.pooler.dense", "cls.seq_relationship"),
        "BertForSequenceClassification": Head(
            "classifier", {**dense("bert.pooler.dense", "head/pooler"), **CLASSES}
        ),
        "BertForTokenClassification": Head("tokens", CLASSES),
        "BertForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES,
    twins={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(
        r"embeddings\.position_ids",
        r"pooler\.dense\.(weight|bias)",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
)
ROBERTA = Family(
    model_type="roberta",
    config=EncoderConfig,
    base="RobertaModel",
    prefix="roberta.",
    fields=ROBERTA_FIELDS,
    style=dict(lm_head_activation="gelu"),
    positions="pad_token",
    table=BACKBONE,
    heads=roberta_heads("Roberta"),
    aliases=ALIASES,
    twins={"lm_head.decoder.bias": "lm_head.bias"},
    ignored=(
        r"embeddings\.position_ids",
        r"pooler\.dense\.(weight|bias)",
    ),
)
XLM_ROBERTA = dataclasses.replace(
    ROBERTA,
    model_type="xlm-roberta",
    base="XLMRobertaModel",
    heads=roberta_heads("XLMRoberta"),
)
PRELAYERNORM = dataclasses.replace(
    ROBERTA,
    model_type="roberta-prelayernorm",
    base="RobertaPreLayerNormModel",
    prefix="roberta_prelayernorm.",
    style=dict(norm_place="pre", extra_norms=("embedding", "final"), lm_head_activation="gelu"),
    table=PRE_NORM_BACKBONE,
    heads=roberta_heads("RobertaPreLayerNorm"),
)
CAMEMBERT = dataclasses.replace(
    ROBERTA, model_type="camembert", base="CamembertModel", heads=roberta_heads("Camembert")
)
