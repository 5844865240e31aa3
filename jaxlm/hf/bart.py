"""BART (Lewis et al. 2020, 1910.13461), mBART (2001.08210), Marian (1804.00344), M2M100 (2010.11125) and NLLB.

They differ in where the norms are and in how positions are encoded.
"""

from __future__ import annotations

from typing import Any, Literal

from jaxlm.config import EncoderDecoderConfig
from jaxlm.hf.bert import SPAN
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Field, FieldMap, activation, agrees, field, fixed, unused, written
from jaxlm.hf.table import Rule, attention, dense, linear, norm, within
from jaxlm.hf.tying import EMBEDDING, TARGET_EMBEDDING


def _fields(act: str = "gelu", scaled: bool = False, **more: Field) -> FieldMap:
    """The field map of a family, given its default activation and whether it scales embeddings by default."""
    return {
        "vocab_size": "vocab_size",
        "decoder_vocab_size": agrees("vocab_size"),
        "d_model": "dim",
        "encoder_layers": "num_layers",
        "num_hidden_layers": written("num_layers"),
        "decoder_layers": "num_decoder_layers",
        "encoder_attention_heads": "num_heads",
        "decoder_attention_heads": ("num_decoder_heads", lambda ours: ours["num_heads"]),
        "encoder_ffn_dim": "mlp_dim",
        "decoder_ffn_dim": ("decoder_mlp_dim", lambda ours: ours["mlp_dim"]),
        "max_position_embeddings": ("max_len", 1024),
        "activation_function": activation(act),
        "scale_embedding": ("scale_embeddings", scaled),
        "tie_word_embeddings": ("tie_embeddings", True),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.0),
        "init_std": ("init_std", 0.02),
        "is_encoder_decoder": fixed(True, False, write=True),
        # training settings, and heads that are not supported
        **unused("encoder_layerdrop", "decoder_layerdrop", "activation_dropout"),
        **unused("classifier_dropout", "classif_dropout"),
        # text generation
        **unused("num_beams", "min_length", "early_stopping", "length_penalty", "max_new_tokens"),
        **unused("no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "prefix"),
        **unused("temperature", "top_k", "top_p", "force_bos_token_to_be_generated"),
        # from fairseq; implied by the class
        **unused("normalize_before", "normalize_embedding", "add_final_layer_norm"),
        **unused("add_bias_logits", "static_position_embeddings", "extra_pos_embeddings"),
        **more,
    }


def _attention(theirs: str, ours: str) -> dict[str, str | Rule]:
    return {
        **attention(f"{theirs}.{{}}_proj", ours),
        **norm(f"{theirs}_layer_norm", f"{ours}_norm"),
    }


ENCODER = {
    **_attention("self_attn", "attn"),
    **linear("fc1", "mlp/up"),
    **linear("fc2", "mlp/down"),
    **norm("final_layer_norm", "mlp_norm"),
}
DECODER = ENCODER | _attention("encoder_attn", "cross_attn")


def _side(name: str, layer: dict[str, str | Rule]) -> dict[str, str | Rule]:
    ours = f"backbone/{name}/"
    return {
        f"{name}.embed_positions.weight": f"{ours}embed/position_embedding",
        **norm(f"{name}.layernorm_embedding", f"{ours}embed/norm"),
        **within(f"{name}.layers.{{i}}.", f"{ours}stack/blocks/", layer),
        **norm(f"{name}.layer_norm", f"{ours}final_norm"),
    }


HEAD: dict[str, str | Rule] = {
    "lm_head.weight": "head/unembedding",
    "final_logits_bias": Rule("1 V -> V", "head/unembedding_bias"),
}
# of the classes that read a text twice
TEXT_CLASSES = {
    **dense("classification_head.dense", "head/pooler"),
    **dense("classification_head.out_proj", "head/classes"),
}
# without tied tables each side has its own, and this one is not used
TWINS = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
}
TABLE = {
    "shared.weight": EMBEDDING,
    "decoder.embed_tokens.weight": TARGET_EMBEDDING,
    **_side("encoder", ENCODER),
    **_side("decoder", DECODER),
}
WITHOUT_POSITIONS = {name: rule for name, rule in TABLE.items() if "embed_positions" not in name}


IGNORED = (r"(encoder|decoder)\.version",)
# in older files, and in those of Marian and Pegasus
SINES = (r"(encoder|decoder)\.embed_positions\.weights?",)


def _family(
    model_type: str,
    name: str,
    head: str,
    fields: FieldMap,
    count: Literal["row", "pad_token"] = "row",
    classifiers: dict[str, Head] | None = None,
    **style: Any,
) -> Family:
    is_learned = style["positions"] == "learned"
    return Family(
        model_type=model_type,
        config=EncoderDecoderConfig,
        base=f"{name}Model",
        prefix="model.",
        fields=fields,
        positions=count,
        style=style,
        table=TABLE if is_learned else WITHOUT_POSITIONS,
        heads={head: Head("seq2seq", HEAD), **(classifiers or {})},
        twins=TWINS,
        zeros=("final_logits_bias",),
        sines=() if is_learned else SINES,
        ignored=IGNORED,
    )


def _classifiers(name: str) -> dict[str, Head]:
    """The classes that classify a text by what the decoder makes of it."""
    return {
        f"{name}ForSequenceClassification": Head("twice_read_classifier", TEXT_CLASSES),
        f"{name}ForQuestionAnswering": Head("twice_read_span", SPAN),
    }


BART = _family(
    "bart",
    "Bart",
    "BartForConditionalGeneration",
    _fields(),
    classifiers=_classifiers("Bart"),
    norm_place="post",
    extra_norms=("embedding",),
    positions="learned",
    position_offset=2,
    logit_bias=True,
)
MBART = _family(
    "mbart",
    "MBart",
    "MBartForConditionalGeneration",
    _fields(),
    classifiers=_classifiers("MBart"),
    norm_place="pre",
    extra_norms=("embedding", "final"),
    positions="learned",
    position_offset=2,
    logit_bias=True,
)
MARIAN = _family(
    "marian",
    "Marian",
    "MarianMTModel",
    _fields(share_encoder_decoder_embeddings=field("share_embeddings", True)),
    norm_place="post",
    extra_norms=(),
    positions="sinusoidal",
    logit_bias=True,
)
M2M100 = _family(
    "m2m_100",
    "M2M100",
    "M2M100ForConditionalGeneration",
    _fields(
        act="relu",
        scaled=True,
        # the first position is pad_token_id + 1
        pad_token_id=field(
            "position_offset",
            1,
            read=lambda pad, ours: pad + 1,
            write=lambda offset, ours: offset - 1,
        ),
    ),
    count="pad_token",
    norm_place="pre",
    extra_norms=("final",),
    positions="sinusoidal_inclusive",
)
