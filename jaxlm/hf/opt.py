"""OPT (Zhang et al. 2022, 2205.01068): BART's decoder alone, with positions counted over the attention mask."""

from __future__ import annotations

from jaxlm.hf.bart import ENCODER
from jaxlm.hf.family import decoder
from jaxlm.hf.fields import activation, choice, field, fixed, unused
from jaxlm.hf.table import norm, within

OPT = decoder(
    "opt",
    "OPT",
    span=True,
    prefix="model.",
    fields={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "word_embed_proj_dim": ("dim", lambda ours: ours["dim"]),
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "ffn_dim": "mlp_dim",
        "max_position_embeddings": ("max_len", 2048),
        "do_layer_norm_before": choice("norm_place", {True: "pre", False: "post"}),
        "_remove_final_layer_norm": field(
            "extra_norms.final",
            False,
            read=lambda removed, ours: ours["norm_place"] == "pre" and not removed,
            write=lambda is_there, ours: ours["norm_place"] == "pre" and not is_there,
        ),
        "activation_function": activation("relu"),
        "enable_bias": (("biases.qkv", "biases.attn_out", "biases.mlp"), True),
        "layer_norm_elementwise_affine": fixed(True),
        "tie_word_embeddings": ("tie_embeddings", True),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.0),
        "init_std": ("init_std", 0.02),
        **unused("layerdrop", "activation_dropout", "prefix"),
    },
    style=dict(position_offset=2),
    positions="mask",
    table={
        "decoder.embed_tokens.weight": "backbone/embed/token/embedding",
        "decoder.embed_positions.weight": "backbone/embed/position_embedding",
        **within("decoder.layers.{i}.", "backbone/stack/blocks/", ENCODER),
        **norm("decoder.final_layer_norm", "backbone/final_norm"),
    },
    ignored=(r"decoder\.version",),
)
