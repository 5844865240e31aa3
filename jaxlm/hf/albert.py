"""ALBERT (Lan et al. 2020, 1909.11942): BERT whose layers share their parameters, with narrow embeddings."""

from __future__ import annotations

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import ALIASES, CLASSES, EMBEDDINGS, SHARED, SPAN, with_pairs
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Field, FieldMap, Values, activation, field, fixed, unused
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import dense, linear, norm, within


def _embedding_size() -> Field:
    """The width of the embeddings, whose projection transformers has even if it is the width of the model."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        width = settings.typed(name, 128)
        if width == values["dim"]:
            raise settings.unsupported(name, width, "another width than hidden_size")
        return {"embedding_dim": width}

    return Field(read, lambda name, values: {name: values["embedding_dim"]})


FIELDS: FieldMap = SHARED | {
    "hidden_act": activation("gelu_new"),
    "num_hidden_groups": field(
        "layer_groups",
        1,
        least=1,
        write=lambda groups, ours: groups or ours["num_layers"],
    ),
    "inner_group_num": fixed(1, write=True),
    "embedding_size": _embedding_size(),
    "max_position_embeddings": ("max_len", 512),
    "hidden_dropout_prob": ("dropout", 0.0),
    "attention_probs_dropout_prob": ("attention_dropout", 0.0),
    # of older versions, and of heads
    "net_structure_type": fixed(0),
    "num_memory_blocks": fixed(0),
    "gap_size": fixed(0),
    "down_scale_factor": fixed(1),
    **unused("classifier_dropout_prob"),
}
LAYER = {
    **linear("attention.query", "attn/query"),
    **linear("attention.key", "attn/key"),
    **linear("attention.value", "attn/value"),
    **linear("attention.dense", "attn/out"),
    **norm("attention.LayerNorm", "attn_norm"),
    **linear("ffn", "mlp/up"),
    **linear("ffn_output", "mlp/down"),
    **norm("full_layer_layer_norm", "mlp_norm"),
}
MASKED_LM = {
    **dense("predictions.dense", "head/transform"),
    **norm("predictions.LayerNorm", "head/norm"),
    "predictions.bias": "head/unembedding_bias",
    "predictions.decoder.weight": "head/unembedding",
}
ALBERT = Family(
    model_type="albert",
    config=EncoderConfig,
    base="AlbertModel",
    prefix="albert.",
    fields=FIELDS,
    table={
        **EMBEDDINGS,
        **linear("encoder.embedding_hidden_mapping_in", "backbone/embed/project"),
        **within(
            "encoder.albert_layer_groups.{i}.albert_layers.0.", "backbone/stack/blocks/", LAYER
        ),
    },
    heads={
        "AlbertForMaskedLM": Head("masked_lm", MASKED_LM),
        "AlbertForPreTraining": with_pairs(MASKED_LM, "albert.pooler", "sop_classifier.classifier"),
        "AlbertForSequenceClassification": Head(
            "classifier", {**dense("albert.pooler", "head/pooler"), **CLASSES}
        ),
        "AlbertForTokenClassification": Head("tokens", CLASSES),
        "AlbertForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES,
    twins={"predictions.decoder.bias": "predictions.bias"},
    ignored=(
        r"embeddings\.position_ids",
        r"pooler\.(weight|bias)",
        r"sop_classifier\.classifier\.(weight|bias)",
    ),
)
