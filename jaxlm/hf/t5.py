"""T5 and T5 v1.1, Flan-T5 among them (Raffel et al. 2020, 1910.10683), and mT5 (Xue et al. 2021, 2010.11934)."""

from __future__ import annotations

import functools
from typing import Any

from jaxlm.config import EncoderDecoderConfig, t5_style
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields, activation_name, gated
from jaxlm.hf.table import Rule, Table, norm, within


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


def _read(f: Fields, *, scaled: bool, projection: str) -> EncoderDecoderConfig:
    """`scaled` says whether the family knows outputs over sqrt(dim), `projection` is its usual MLP."""
    f.skip(
        "classifier_dropout", "initializer_factor", "is_gated_act", "dense_act_fn", "n_positions"
    )
    given = f("feed_forward_proj", projection)
    gate, _, act = given.rpartition("-")
    if gate not in ("", "gated"):
        raise f.unsupported("feed_forward_proj", given, "an activation, or gated- and one")
    # "gated-gelu" has always meant the approximation
    name = "gelu_new" if given == "gated-gelu" else act
    activation = Fields({"activation": name}, f.where).activation("activation", name)
    # since transformers 5 a field of its own, before it a meaning of the other
    tied = f("tie_word_embeddings", True)
    scale_outputs = f("scale_decoder_outputs", tied) if scaled else False
    layers = f.integer("num_layers")
    decoder_layers = f.integer("num_decoder_layers", layers)
    style: dict[str, Any] = t5_style() | dict(
        norm_eps=f("layer_norm_epsilon", 1e-6),
        activation=gated(activation) if gate else activation,
        tie_embeddings=tied,
    )
    return EncoderDecoderConfig(
        vocab_size=f.integer("vocab_size"),
        dim=f.integer("d_model"),
        num_layers=layers,
        num_decoder_layers=None if decoder_layers == layers else decoder_layers,
        num_heads=f.integer("num_heads"),
        head_dim=f.integer("d_kv"),
        mlp_dim=f.integer("d_ff"),
        relative_buckets=f.integer("relative_attention_num_buckets", 32),
        relative_max_distance=f.integer("relative_attention_max_distance", 128),
        dropout=f("dropout_rate", 0.1),
        attention_dropout=f("dropout_rate", 0.1),
        scale_outputs=scale_outputs,
        **style,
    )


def _write(c: EncoderDecoderConfig, *, scaled: bool) -> dict[str, Any]:
    act = activation_name(c.activation_function)
    if c.is_gated:
        act = "gated-gelu" if c.activation == "geglu_tanh" else f"gated-{act}"
    values = dict(
        vocab_size=c.vocab_size,
        d_model=c.dim,
        num_layers=c.num_layers,
        num_decoder_layers=c.decoder.num_layers,
        num_heads=c.num_heads,
        d_kv=c.head_width,
        d_ff=c.mlp_width,
        relative_attention_num_buckets=c.relative_buckets,
        relative_attention_max_distance=c.relative_max_distance,
        dropout_rate=c.dropout,
        layer_norm_epsilon=c.norm_eps,
        feed_forward_proj=act,
        tie_word_embeddings=c.tie_embeddings,
        is_encoder_decoder=True,
    )
    return values | (dict(scale_decoder_outputs=c.scale_outputs) if scaled else {})


def _family(model_type: str, name: str, *, scaled: bool, projection: str) -> Family:
    return Family(
        model_type=model_type,
        config=EncoderDecoderConfig,
        base=f"{name}Model",
        prefix="",
        table={
            "shared.weight": "backbone/embed/token/embedding",
            **_side("encoder", ENCODER),
            **_side("decoder", DECODER),
        },
        heads={
            f"{name}ForConditionalGeneration": Head(
                "seq2seq", {"lm_head.weight": "head/unembedding"}
            )
        },
        read=functools.partial(_read, scaled=scaled, projection=projection),
        write=functools.partial(_write, scaled=scaled),
        ignored=(
            r"(encoder|decoder)\.embed_tokens\.weight",
            # in files of the first T5, and used by nobody
            r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        ),
    )


T5 = _family("t5", "T5", scaled=True, projection="relu")
MT5 = _family("mt5", "MT5", scaled=False, projection="gated-gelu")
