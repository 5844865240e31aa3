"""T5 and T5 v1.1, Flan-T5 among them (Raffel et al. 2020, 1910.10683), and mT5 (Xue et al. 2021, 2010.11934)."""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderDecoderConfig, t5_style
from jaxlm.hf.bart import TEXT_CLASSES
from jaxlm.hf.bert import SPAN
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import (
    GATED,
    Field,
    FieldMap,
    Values,
    activation_function,
    activation_name,
    fixed,
    gated,
    unused,
)
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Rule, Table, norm, within
from jaxlm.hf.tying import EMBEDDING, TARGET_EMBEDDING


def _projection(default: str) -> Field:
    """`feed_forward_proj`: an activation, with the prefix `gated-` for a gated MLP; `gated-gelu` uses tanh."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        given = settings.typed(name, default)
        gate, _, act = given.rpartition("-")
        if gate not in ("", "gated"):
            raise settings.unsupported(
                name, given, "an activation, with or without the prefix gated-"
            )
        act = "gelu_new" if given == "gated-gelu" else act
        function = activation_function(settings, name, act)
        return {"activation": gated(function) if gate else function}

    def write(name: str, values: Values) -> dict[str, Any]:
        act = values["activation"]
        if act == "geglu_tanh":
            return {name: "gated-gelu"}
        return {
            name: f"gated-{activation_name(GATED[act])}" if act in GATED else activation_name(act)
        }

    return Field(read, write)


def _fields(projection: str, **more: Any) -> FieldMap:
    """The field map of a family, given its default `feed_forward_proj`."""
    return {
        "vocab_size": "vocab_size",
        "d_model": "dim",
        "num_layers": "num_layers",
        "num_decoder_layers": ("num_decoder_layers", lambda ours: ours["num_layers"]),
        "num_heads": "num_heads",
        "d_kv": "head_dim",
        "d_ff": "mlp_dim",
        "feed_forward_proj": _projection(projection),
        "relative_attention_num_buckets": ("relative_buckets", 32),
        "relative_attention_max_distance": ("relative_max_distance", 128),
        "layer_norm_epsilon": ("norm_eps", 1e-6),
        "dropout_rate": (("dropout", "attention_dropout"), 0.1),
        "tie_word_embeddings": ("tie_embeddings", True),
        "is_encoder_decoder": fixed(True, False, write=True),
        # no limit of the model: the length of its training
        "n_positions": ("max_len", 512),
        **unused("classifier_dropout", "initializer_factor"),
        **unused("is_gated_act", "dense_act_fn"),  # derived from feed_forward_proj by transformers
        **more,
    }


def _attention(theirs: str, ours: str) -> dict[str, str | Rule]:
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    return {f"{theirs}.{name}.weight": f"{ours}/{role}" for name, role in names.items()}


def _mlp(theirs: str) -> dict[str, str | Rule]:
    return {
        f"{theirs}.wi.weight": Rule(None, "mlp/up", gated=False),
        f"{theirs}.wi_0.weight": "mlp/gate",
        f"{theirs}.wi_1.weight": Rule(None, "mlp/up", gated=True),
        f"{theirs}.wo.weight": "mlp/down",
    }


def _side(name: str, layer: Table) -> dict[str, str | Rule]:
    stack = f"backbone/{name}/stack/"
    bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return {
        bias: stack + "relative_bias",
        **within(f"{name}.block.{{i}}.layer.", f"{stack}blocks/", layer),
        **norm(f"{name}.final_layer_norm", f"backbone/{name}/final_norm"),
    }


SELF = _attention("0.SelfAttention", "attn") | norm("0.layer_norm", "attn_norm")
CROSS = _attention("1.EncDecAttention", "cross_attn") | norm("1.layer_norm", "cross_attn_norm")
ENCODER = SELF | _mlp("1.DenseReluDense") | norm("1.layer_norm", "mlp_norm")
DECODER = SELF | CROSS | _mlp("2.DenseReluDense") | norm("2.layer_norm", "mlp_norm")


def _family(model_type: str, name: str, fields: FieldMap) -> Family:
    return Family(
        model_type=model_type,
        config=EncoderDecoderConfig,
        base=f"{name}Model",
        prefix="",
        fields=fields,
        style=t5_style(),
        table={
            "shared.weight": EMBEDDING,
            "decoder.embed_tokens.weight": TARGET_EMBEDDING,
            **_side("encoder", ENCODER),
            **_side("decoder", DECODER),
        },
        heads={
            f"{name}ForConditionalGeneration": Head(
                "seq2seq", {"lm_head.weight": "head/unembedding"}
            ),
            f"{name}ForSequenceClassification": Head(
                "twice_read_classifier", TEXT_CLASSES, "transformer."
            ),
            f"{name}ForQuestionAnswering": Head("twice_read_span", SPAN),
        },
        always_ties=True,
        twins={
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        },
        ignored=(
            # stored in files of the first T5, but not used
            r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        ),
    )


# outputs divided by sqrt(dim): implied by tied embeddings before transformers 5, which has a field for it
T5 = _family(
    "t5",
    "T5",
    _fields("relu", scale_decoder_outputs=("scale_outputs", lambda ours: ours["tie_embeddings"])),
)
MT5 = _family("mt5", "MT5", _fields("gated-gelu"))
