"""Qwen 1.5 and 2 with experts (2407.10671, section 2.2.2), and Qwen 3 with experts (2505.09388)."""

from __future__ import annotations

import functools
from typing import Any

from jaxlm.hf import fields
from jaxlm.hf.fields import Field, FieldMap, Values, choice, field, unused
from jaxlm.hf.llama import ATTENTION, ATTENTION_BIAS, OLD_PREFIX, SHARED, family
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Table, linear


def _read_layers(width: int, settings: Settings, name: str, ours: Values) -> Values:
    """The layers without experts: those listed, and all but every `decoder_sparse_step`-th; `width` is the default."""
    step = settings.typed("decoder_sparse_step", 1)
    if step < 1:
        raise settings.unsupported("decoder_sparse_step", step, "1 or more")
    listed = settings(name, None) or []
    if not isinstance(listed, list) or not all(type(i) is int for i in listed):
        raise settings.unsupported(name, listed, "a list of layers")
    every = range(ours["num_layers"])
    dense = tuple(i for i in every if i in listed or (i + 1) % step)
    if len(dense) == len(every):
        raise settings.unsupported(name, listed, "a layer with experts: this model has none")
    if not dense:
        settings.skip("intermediate_size")
        return {}
    return dict(dense_layers=dense, dense_mlp_dim=settings.typed("intermediate_size", width))


def _write_layers(name: str, ours: Values) -> dict[str, Any]:
    written: dict[str, Any] = {name: list(ours["dense_layers"]), "decoder_sparse_step": 1}
    if ours["dense_layers"]:
        written["intermediate_size"] = ours["dense_mlp_dim"] or ours["mlp_dim"]
    return written


def _read_window(settings: Settings, name: str, ours: Values) -> Values:
    """In Qwen 2, the window of every second layer up to `max_window_layers`, unless `layer_types` is given."""
    settings.skip("sliding_window", "max_window_layers")
    pattern = fields.read_layer_types(settings)
    if not settings.typed(name, False):
        if pattern is not None and "local" in pattern:
            raise settings.unsupported(name, False, "true, with these layer_types")
        return {}
    if pattern is None:
        last = settings.typed("max_window_layers", 28)
        kinds = (
            "local" if i % 2 == 0 and i < last else "global" for i in range(ours["num_layers"])
        )
        pattern = fields.shortest_pattern(tuple(kinds))
    if "local" not in pattern:
        return {}
    return dict(window=settings.typed("sliding_window", 4096), layer_pattern=pattern)


def _write_window(name: str, ours: Values) -> dict[str, Any]:
    return {
        name: ours["window"] is not None,
        "sliding_window": ours["window"] or 0,
        "layer_types": fields.write_layer_types(ours),
    }


def _read_whole_window(settings: Settings, name: str, ours: Values) -> Values:
    """In Qwen 3, the window of all layers."""
    settings.skip("sliding_window", "max_window_layers")
    window = settings.nullable("sliding_window", 4096) if settings.typed(name, False) else None
    return {"window": window}


def _write_whole_window(name: str, ours: Values) -> dict[str, Any]:
    return {name: ours["window"] is not None, "sliding_window": ours["window"]}


def _experts(count: int, default: int, width: int, dense_width: int) -> FieldMap:
    """Fields of the experts: number, number for each token, and width; width of the layers without."""
    number = field("num_experts", count, least=1)

    def read(settings: Settings, name: str, ours: Values) -> Values:
        # what transformers 5 writes for Qwen 3
        return number.read(settings, name if name in settings.values else "num_local_experts", ours)

    return {
        "moe_intermediate_size": ("mlp_dim", width),
        **unused("output_router_logits"),
        "num_experts": Field(read, number.write),
        "num_experts_per_tok": ("experts_per_token", default),
        "norm_topk_prob": choice("router_weights", {False: "all", True: "selected"}),
        "router_aux_loss_coef": ("router_balance", 0.001),
        "mlp_only_layers": Field(functools.partial(_read_layers, dense_width), _write_layers),
    }


COMMON: FieldMap = {name: rule for name, rule in SHARED.items() if name != "intermediate_size"}
EXPERTS: Table = {
    **ATTENTION,
    "mlp.gate.weight": "mlp/router",
    "mlp.experts.{e}.gate_proj.weight": "mlp/expert_gate",
    "mlp.experts.{e}.up_proj.weight": "mlp/expert_up",
    "mlp.experts.{e}.down_proj.weight": "mlp/expert_down",
    # of layers without experts
    **linear("mlp.gate_proj", "mlp/gate"),
    **linear("mlp.up_proj", "mlp/up"),
    **linear("mlp.down_proj", "mlp/down"),
    **linear("mlp.shared_expert.gate_proj", "mlp/shared/gate"),
    **linear("mlp.shared_expert.up_proj", "mlp/shared/up"),
    **linear("mlp.shared_expert.down_proj", "mlp/shared/down"),
    "mlp.shared_expert_gate.weight": "mlp/shared_weight",
}
QWEN2_MOE = family(
    "qwen2_moe",
    "Qwen2Moe",
    {
        **COMMON,
        **_experts(60, 4, 1408, 5632),
        "max_position_embeddings": ("max_len", 32768),
        "shared_expert_intermediate_size": ("shared_expert_dim", 5632),
        "qkv_bias": ("biases.qkv", True),
        "use_sliding_window": Field(_read_window, _write_window),
    },
    EXPERTS,
    span=True,
)
QWEN3_MOE = family(
    "qwen3_moe",
    "Qwen3Moe",
    {
        **COMMON,
        **ATTENTION_BIAS,
        **_experts(128, 8, 768, 6144),
        "max_position_embeddings": ("max_len", 32768),
        "use_sliding_window": Field(_read_whole_window, _write_whole_window),
    },
    EXPERTS,
    span=OLD_PREFIX,
    extra_norms=("qk", "final"),
)
