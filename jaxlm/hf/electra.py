"""ELECTRA (Clark et al. 2020, 2003.10555): BERT with narrow embeddings; its generator and its discriminator."""

from __future__ import annotations

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import ALIASES, BACKBONE, CLASSES, SHARED, SPAN, TWO_LAYERS
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, unused
from jaxlm.hf.table import dense, linear, norm

FIELDS: FieldMap = SHARED | {
    "max_position_embeddings": "max_len",
    "embedding_size": ("embedding_dim", 128),
    **unused("summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj"),
    **unused("generator_hidden_size", "generator_num_hidden_layers"),
}
GENERATOR = {
    **dense("generator_predictions.dense", "head/transform"),
    **norm("generator_predictions.LayerNorm", "head/norm"),
    "generator_lm_head.bias": "head/unembedding_bias",
    "generator_lm_head.weight": "head/unembedding",
}
DISCRIMINATOR = {
    **dense("discriminator_predictions.dense", "head/pooler"),
    **dense("discriminator_predictions.dense_prediction", "head/classes"),
}
ELECTRA = Family(
    model_type="electra",
    config=EncoderConfig,
    base="ElectraModel",
    prefix="electra.",
    fields=FIELDS,
    style=dict(head_activation="gelu", lm_head_activation="gelu"),
    table={**BACKBONE, **linear("embeddings_project", "backbone/embed/project")},
    heads={
        "ElectraForMaskedLM": Head("masked_lm", GENERATOR),
        "ElectraForPreTraining": Head("detector", DISCRIMINATOR),
        "ElectraForSequenceClassification": Head("classifier", TWO_LAYERS),
        "ElectraForTokenClassification": Head("tokens", CLASSES),
        "ElectraForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES,
    ignored=(r"embeddings\.position_ids",),
)
