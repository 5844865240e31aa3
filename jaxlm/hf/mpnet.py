"""MPNet (Song et al. 2020, 2004.09297): RoBERTa without token types and with T5's bias by distance on the scores."""

from __future__ import annotations

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import ALIASES, CLASSES, ROBERTA_LM, SHARED, SPAN, TWO_LAYERS
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import FieldMap, field, fixed
from jaxlm.hf.table import linear, norm, within

# transformers has these two numbers in its code, whatever config.json says
FIRST_POSITION, BUCKETS = 2, 32

FIELDS: FieldMap = {
    **{name: rule for name, rule in SHARED.items() if name != "type_vocab_size"},
    "max_position_embeddings": field(
        "max_len",
        read=lambda rows, ours: rows - FIRST_POSITION,
        write=lambda length, ours: length + FIRST_POSITION,
    ),
    "relative_attention_num_buckets": fixed(BUCKETS, write=True),
}
LAYER = {
    **linear("attention.attn.q", "attn/query"),
    **linear("attention.attn.k", "attn/key"),
    **linear("attention.attn.v", "attn/value"),
    **linear("attention.attn.o", "attn/out"),
    **norm("attention.LayerNorm", "attn_norm"),
    **linear("intermediate.dense", "mlp/up"),
    **linear("output.dense", "mlp/down"),
    **norm("output.LayerNorm", "mlp_norm"),
}
MPNET = Family(
    model_type="mpnet",
    config=EncoderConfig,
    base="MPNetModel",
    prefix="mpnet.",
    fields=FIELDS,
    style=dict(
        num_token_types=0,
        lm_head_activation="gelu",
        position_offset=FIRST_POSITION,
        relative_scores="shared",
        relative_buckets=BUCKETS,
        relative_max_distance=128,
    ),
    positions="pad_token",
    table={
        "embeddings.word_embeddings.weight": "backbone/embed/token/embedding",
        "embeddings.position_embeddings.weight": "backbone/embed/position_embedding",
        **norm("embeddings.LayerNorm", "backbone/embed/norm"),
        "encoder.relative_attention_bias.weight": "backbone/stack/relative_bias",
        **within("encoder.layer.{i}.", "backbone/stack/blocks/", LAYER),
    },
    heads={
        "MPNetForMaskedLM": Head("masked_lm", ROBERTA_LM),
        "MPNetForSequenceClassification": Head("classifier", TWO_LAYERS),
        "MPNetForTokenClassification": Head("tokens", CLASSES),
        "MPNetForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES,
    twins={"lm_head.decoder.bias": "lm_head.bias"},
    ignored=(
        r"embeddings\.position_ids",
        r"pooler\.dense\.(weight|bias)",
    ),
)
