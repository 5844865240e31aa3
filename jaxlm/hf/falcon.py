"""Falcon (Almazrouei et al. 2023, 2311.16867): parallel blocks, few heads of keys, rotary positions or ALiBi.

Query, key and value are one tensor in groups: one group with all queries (multi-query), or one for each head of keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.hf.family import decoder
from jaxlm.hf.fields import Field, FieldMap, Values, activation, unused
from jaxlm.hf.gpt_neox import QUERY_KEY_VALUE
from jaxlm.hf.rope import rope
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Rule, linear, norm, within

ROPE = rope()["rope_parameters"]


def has_two_norms(settings: Mapping[str, Any]) -> bool:
    """Whether a block has a norm for attention and one for the MLP side by side, which have other names (40B)."""
    is_new = bool(settings.get("new_decoder_architecture"))
    return is_new and settings.get("num_ln_in_parallel_attn") in (None, 2)


def _read_block(settings: Settings, name: str, ours: Values) -> Values:
    """Which sub-layers read the same input, and the heads of keys."""
    is_new = settings.typed(name, False)
    is_parallel = settings.typed("parallel_attn", True)
    is_single = settings.typed("multi_query", True)
    norms = settings("num_ln_in_parallel_attn", 2 if is_new else 1)
    if is_new and not is_parallel:
        raise settings.unsupported("parallel_attn", False, "true with new_decoder_architecture")
    if norms not in (1, 2) or (norms == 2 and not is_new):
        raise settings.unsupported(
            "num_ln_in_parallel_attn", norms, "2 in the new architecture, or 1"
        )
    heads = settings("num_kv_heads", ours["num_heads"])
    if not is_new:
        heads = 1 if is_single else ours["num_heads"]
    return {
        "num_kv_heads": heads,
        "parallel_block": is_parallel,
        "shared_norm": is_parallel and norms == 1,
    }


def _write_block(name: str, ours: Values) -> dict[str, Any]:
    heads, keys = ours["num_heads"], ours["num_kv_heads"]
    is_parallel, is_shared = ours["parallel_block"], ours["shared_norm"]
    is_new = is_parallel and (not is_shared or keys not in (1, heads))
    return {
        name: is_new,
        "parallel_attn": is_parallel,
        # only the one of the architecture is used
        "multi_query": is_new or keys == 1,
        "num_kv_heads": keys if is_new else heads,
        "num_ln_in_parallel_attn": (1 if is_shared else 2) if is_new else None,
    }


def _read_positions(settings: Settings, name: str, ours: Values) -> Values:
    if not settings.typed(name, False):
        return {"positions": "rotary", **ROPE.read(settings, "rope_parameters", ours)}
    settings.skip("rope_parameters", "rope_theta", "rope_scaling")
    width = ours["dim"] // ours["num_heads"]
    return {"positions": "alibi", "alibi_scale": width**-0.5, "alibi_dtype": "bfloat16"}


def _write_positions(name: str, ours: Values) -> dict[str, Any]:
    is_alibi = ours["positions"] == "alibi"
    return {name: is_alibi, **({} if is_alibi else ROPE.write("rope_parameters", ours))}


def _read_width(settings: Settings, name: str, ours: Values) -> Values:
    # the older name comes first
    return {"dim": settings.typed("n_embed", settings.typed(name, 4544))}


FIELDS: FieldMap = {
    "vocab_size": ("vocab_size", 65024),
    "hidden_size": Field(_read_width, lambda name, ours: {name: ours["dim"]}),
    "num_hidden_layers": ("num_layers", 32),
    "num_attention_heads": ("num_heads", 71),
    "ffn_hidden_size": ("mlp_dim", lambda ours: 4 * ours["dim"]),
    "max_position_embeddings": ("max_len", 2048),
    "layer_norm_epsilon": ("norm_eps", 1e-5),
    "activation": activation("gelu"),
    "bias": (("biases.qkv", "biases.attn_out", "biases.mlp"), False),
    "new_decoder_architecture": Field(_read_block, _write_block),
    "alibi": Field(_read_positions, _write_positions),
    "tie_word_embeddings": ("tie_embeddings", True),
    "hidden_dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    **unused("apply_residual_connection_post_layernorm", "classifier_dropout"),
}
LAYER = {
    **norm("input_layernorm", "attn_norm"),
    "self_attention.query_key_value.weight": Rule(None, *QUERY_KEY_VALUE, grouped=True),
    "self_attention.query_key_value.bias": Rule(
        None, *(f"{name}_bias" for name in QUERY_KEY_VALUE), grouped=True
    ),
    **linear("self_attention.dense", "attn/out"),
    **norm("post_attention_layernorm", "mlp_norm"),
    **linear("mlp.dense_h_to_4h", "mlp/up"),
    **linear("mlp.dense_4h_to_h", "mlp/down"),
}


def _table(layer: dict[str, str | Rule]) -> dict[str, str | Rule]:
    return {
        "word_embeddings.weight": "backbone/embed/token/embedding",
        **within("h.{i}.", "backbone/stack/blocks/", layer),
        **norm("ln_f", "backbone/final_norm"),
    }


FALCON = decoder(
    "falcon",
    "Falcon",
    tokens="classifier",
    span=True,
    prefix="transformer.",
    fields=FIELDS,
    style=dict(biases=("norm",)),
    # in a padded row, as ALiBi counts them along the mask
    positions="mask",
    table=_table(LAYER),
    ignored=(r"h\.\d+\.self_attention\.rotary(_emb)?\.inv_freq",),
)
FALCON_TWO_NORMS = dataclasses.replace(
    FALCON,
    table=_table(
        {
            name.replace("input_layernorm", "ln_attn").replace(
                "post_attention_layernorm", "ln_mlp"
            ): rule
            for name, rule in LAYER.items()
        }
    ),
)
