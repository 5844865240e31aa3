"""DeBERTa v2 and v3 (He et al. 2020, 2006.03654; 2021, 2111.09543): BERT with disentangled attention."""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import ALIASES, BERT_LM, CLASSES, EMBEDDINGS, SHARED, SPAN
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Field, FieldMap, Values, choice, field, fixed, unused
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import dense, linear, norm, within

TERMS = {"p2c": "position_to_content", "c2p": "content_to_position"}


def _read_terms(settings: Settings) -> tuple[str, ...]:
    """`pos_att_type`: a list, or the same with bars between."""
    given = settings("pos_att_type", [])
    names = [x.strip() for x in given.lower().split("|") if x] if isinstance(given, str) else given
    for name in names:
        if name not in TERMS:
            raise settings.unsupported("pos_att_type", given, " and ".join(TERMS))
    return tuple(ours for theirs, ours in TERMS.items() if theirs in names)


def _read(settings: Settings, name: str, values: Values) -> Values:
    """Everything about positions, which these fields describe together."""
    is_relative = settings.typed(name, False)
    is_absolute = settings.typed("position_biased_input", True)
    terms = _read_terms(settings)
    # the two also change the scale of the scores, so one without the other is not the plain attention
    if is_relative != bool(terms):
        raise settings.unsupported(name, is_relative, "true with pos_att_type, or neither")
    plain = {True: "learned", False: "relative" if is_relative else "none"}[is_absolute]
    if not is_relative:
        settings.skip("share_att_key", "position_buckets", "max_relative_positions")
        return {"positions": plain}
    longest = settings.typed("max_relative_positions", -1)
    longest = values["max_len"] if longest < 1 else longest
    side = settings.typed("position_buckets", -1)
    if side >= longest:
        raise settings.unsupported(
            "position_buckets", side, f"-1 or less than max_relative_positions, {longest}"
        )
    shares = settings.typed("share_att_key", False)
    return {
        "positions": plain,
        "relative_scores": "disentangled",
        "relative_terms": terms,
        "relative_projections": "content" if shares else "own",
        "relative_buckets": 2 * (side if side > 0 else longest),
        "relative_max_distance": longest,
    }


def _write(name: str, values: Values) -> dict[str, Any]:
    is_relative = values["relative_scores"] == "disentangled"
    theirs = {name: is_relative, "position_biased_input": values["positions"] == "learned"}
    if not is_relative:
        return theirs
    side, longest = values["relative_buckets"] // 2, values["relative_max_distance"]
    return theirs | {
        "pos_att_type": [x for x, ours in TERMS.items() if ours in values["relative_terms"]],
        "share_att_key": values["relative_projections"] == "content",
        "position_buckets": side if side < longest else -1,
        "max_relative_positions": longest,
    }


def _tied() -> Field:
    """`legacy` false is a head whose output table is always that of the embeddings."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        is_legacy, tied = settings.typed("legacy", True), settings.typed(name, True)
        return {"tie_embeddings": tied or not is_legacy}

    return Field(read, lambda name, values: {name: values["tie_embeddings"]})


def _same_width() -> Field:
    """A width that has to be that of the model."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        if settings(name, values["dim"]) != values["dim"]:
            raise settings.unsupported(
                name, settings(name), f"that of hidden_size, {values['dim']}"
            )
        return {}

    return Field(read, lambda name, values: {})


def _read_convolution(settings: Settings, name: str, values: Values) -> Values:
    width = settings.typed(name, 0)
    settings.skip("conv_act")
    if width <= 0:
        return {"convolution": None}
    if width % 2 == 0:
        raise settings.unsupported(name, width, "0 or an odd number")
    settings.only("conv_act", "tanh", "gelu", "relu")
    return {"convolution": width, "convolution_activation": settings("conv_act", "tanh")}


def _write_convolution(name: str, values: Values) -> dict[str, Any]:
    width = values["convolution"]
    return {name: width or 0} | ({"conv_act": values["convolution_activation"]} if width else {})


FIELDS: FieldMap = {
    **SHARED,
    "layer_norm_eps": ("norm_eps", 1e-7),
    "type_vocab_size": ("num_token_types", 0),
    "max_position_embeddings": ("max_len", 512),
    "tie_word_embeddings": _tied(),
    # the layout of the head in files; what is written has the first
    "legacy": fixed(True, False, write=True),
    "relative_attention": Field(_read, _write),
    "norm_rel_ebd": field(
        "extra_norms.relative",
        "none",
        read=lambda names, ours: "layer_norm" in [x.strip() for x in names.lower().split("|")],
        write=lambda has, ours: "layer_norm" if has else "none",
    ),
    "pooler_hidden_act": choice(
        "head_activation", {"gelu": "gelu", "tanh": "tanh", "relu": "relu"}
    ),
    "pooler_hidden_size": _same_width(),
    "embedding_size": _same_width(),
    "attention_head_size": field("head_dim", lambda ours: ours["dim"] // ours["num_heads"]),
    # a convolution beside the first layer (DeBERTa v2 xlarge and xxlarge)
    "conv_kernel_size": Field(_read_convolution, _write_convolution),
    "conv_groups": fixed(1),
    "position_embedding_type": fixed("absolute"),
    **unused("pooler_dropout", "cls_dropout"),
}
LAYER = {
    **linear("attention.self.query_proj", "attn/query"),
    **linear("attention.self.key_proj", "attn/key"),
    **linear("attention.self.value_proj", "attn/value"),
    **linear("attention.self.pos_query_proj", "attn/position_query"),
    **linear("attention.self.pos_key_proj", "attn/position_key"),
    **linear("attention.output.dense", "attn/out"),
    **norm("attention.output.LayerNorm", "attn_norm"),
    **linear("intermediate.dense", "mlp/up"),
    **linear("output.dense", "mlp/down"),
    **norm("output.LayerNorm", "mlp_norm"),
}
# the head of `legacy` false has the same tensors under other names
LM_HEAD = {
    "lm_predictions.lm_head.dense": "cls.predictions.transform.dense",
    "lm_predictions.lm_head.LayerNorm": "cls.predictions.transform.LayerNorm",
    "lm_predictions.lm_head.bias": "cls.predictions.bias",
}
DEBERTA_V2 = Family(
    model_type="deberta-v2",
    config=EncoderConfig,
    base="DebertaV2Model",
    prefix="deberta.",
    fields=FIELDS,
    table={
        **EMBEDDINGS,
        "encoder.rel_embeddings.weight": "backbone/stack/relative_embedding",
        **norm("encoder.LayerNorm", "backbone/stack/relative_norm"),
        "encoder.conv.conv.weight": "backbone/stack/convolution/taps",
        "encoder.conv.conv.bias": "backbone/stack/convolution/bias",
        **norm("encoder.conv.LayerNorm", "backbone/stack/convolution/norm"),
        **within("encoder.layer.{i}.", "backbone/stack/blocks/", LAYER),
    },
    heads={
        "DebertaV2ForMaskedLM": Head("masked_lm", BERT_LM),
        "DebertaV2ForSequenceClassification": Head(
            "classifier", {**dense("pooler.dense", "head/pooler"), **CLASSES}
        ),
        "DebertaV2ForTokenClassification": Head("tokens", CLASSES),
        "DebertaV2ForQuestionAnswering": Head("span", SPAN),
    },
    aliases=ALIASES | LM_HEAD,
    twins={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(
        r"embeddings\.position_ids",
        r"embeddings\.(word|position)_embeddings\._weight",
        # ELECTRA's detector, with which version 3 was pretrained
        r"mask_predictions\..*",
    ),
)
