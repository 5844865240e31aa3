"""GPT-Neo (Black et al. 2021): alternating global and local attention, scores that are not scaled."""

from __future__ import annotations

from typing import Any

from jaxlm.config import DecoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import (
    Field,
    FieldMap,
    Values,
    activation,
    field,
    shortest_pattern,
    unused,
)
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import linear, norm, within


def _read_attention(settings: Settings, name: str, ours: Values) -> Values:
    """`attention_types` is a list of [kinds, times]."""
    kinds: list[str] = []
    for period, times in settings(name, [[["global", "local"], 12]]):
        kinds += list(period) * times
    if len(kinds) != ours["num_layers"] or not set(kinds) <= {"global", "local"}:
        known = f"global and local for num_layers={ours['num_layers']} layers"
        raise settings.unsupported(name, settings(name, "the default"), known)
    return {"layer_pattern": shortest_pattern(tuple(kinds))}


def _write_attention(name: str, ours: Values) -> dict[str, Any]:
    kinds = tuple(("global", "local")[local] for local in ours["local_layers"])
    period = shortest_pattern(kinds)
    times, rest = divmod(len(kinds), len(period))
    return {name: [[list(kinds), 1]] if rest else [[list(period), times]]}


FIELDS: FieldMap = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "intermediate_size": ("mlp_dim", lambda ours: 4 * ours["dim"]),
    "max_position_embeddings": ("max_len", 2048),
    "attention_types": Field(_read_attention, _write_attention),
    "window_size": field("window", 256, write=lambda window, ours: window or ours["max_len"]),
    "activation_function": activation("gelu_new"),
    "layer_norm_epsilon": ("norm_eps", 1e-5),
    "tie_word_embeddings": ("tie_embeddings", True),
    "resid_dropout": ("dropout", 0.0),
    "embed_dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    # `attention_types` written out
    **unused("attention_layers", "classifier_dropout"),
}
LAYER = {
    **norm("ln_1", "attn_norm"),
    **linear("attn.attention.q_proj", "attn/query"),
    **linear("attn.attention.k_proj", "attn/key"),
    **linear("attn.attention.v_proj", "attn/value"),
    **linear("attn.attention.out_proj", "attn/out"),
    **norm("ln_2", "mlp_norm"),
    **linear("mlp.c_fc", "mlp/up"),
    **linear("mlp.c_proj", "mlp/down"),
}
GPT_NEO = Family(
    model_type="gpt_neo",
    config=DecoderConfig,
    base="GPTNeoModel",
    prefix="transformer.",
    fields=FIELDS,
    style=dict(biases=("norm", "attn_out", "mlp"), attention_scale=1.0),
    table={
        "wte.weight": "backbone/embed/token/embedding",
        "wpe.weight": "backbone/embed/position_embedding",
        **within("h.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("ln_f", "backbone/final_norm"),
    },
    heads={
        "GPTNeoForCausalLM": Head("causal_lm", {"lm_head.weight": "head/unembedding"}),
        "GPTNeoForSequenceClassification": Head(
            "classifier", {"score.weight": "head/classes/kernel"}
        ),
    },
    # the causal mask, once stored with every layer
    ignored=(r"h\.\d+\.attn\.attention\.(masked_)?bias",),
)
