"""GPT-Neo (Black et al. 2021): GPT-2 with local attention in every other layer and unscaled attention scores."""

from __future__ import annotations

from typing import Any

from jaxlm.hf.family import decoder
from jaxlm.hf.fields import Values, field, shortest_pattern, unused
from jaxlm.hf.gpt2 import EMBEDDINGS, NORMS, SHARED
from jaxlm.hf.table import attention, linear, within


def _pattern(types: Any, ours: Values) -> tuple[str, ...]:
    kinds = tuple(kind for period, times in types for kind in period * times)
    if len(kinds) != ours["num_layers"]:
        raise ValueError(f"attention_types={types} does not match num_layers={ours['num_layers']}")
    return shortest_pattern(kinds)


def _types(pattern: tuple[str, ...], ours: Values) -> Any:
    times, rest = divmod(ours["num_layers"], len(pattern))
    return [[list(pattern), times], *([[list(pattern[:rest]), 1]] if rest else [])]


LAYER = (
    NORMS
    | attention("attn.attention.{}_proj", "attn")
    | linear("mlp.c_fc", "mlp/up")
    | linear("mlp.c_proj", "mlp/down")
)
GPT_NEO = decoder(
    "gpt_neo",
    "GPTNeo",
    tokens="classifier",
    span=True,
    prefix="transformer.",
    fields=SHARED
    | {
        "hidden_size": "dim",
        "num_layers": "num_layers",
        "num_heads": "num_heads",
        "intermediate_size": ("mlp_dim", lambda ours: 4 * ours["dim"]),
        "max_position_embeddings": ("max_len", 2048),
        "attention_types": field(
            "layer_pattern", [[["global", "local"], 12]], read=_pattern, write=_types
        ),
        "window_size": field("window", 256, write=lambda window, ours: window or ours["max_len"]),
        "resid_dropout": ("dropout", 0.0),
        "embed_dropout": ("embedding_dropout", 0.0),
        "attention_dropout": ("attention_dropout", 0.0),
        **unused("attention_layers", "classifier_dropout"),
    },
    style=dict(biases=("norm", "attn_out", "mlp"), attention_scale=1.0),
    table=EMBEDDINGS | within("h.{i}.", "backbone/stack/blocks/", LAYER),
    ignored=(r"h\.\d+\.attn\.attention\.(masked_)?bias",),
)
