"""Phi-3 and Phi-4 (Abdin et al. 2024, 2404.14219): Llama with fused projections, and longrope."""

from __future__ import annotations

from typing import Any

from jaxlm.hf.fields import Field, FieldMap, Values, nullable, unused
from jaxlm.hf.llama import SHARED, family
from jaxlm.hf.rope import rope
from jaxlm.hf.table import Rule, linear, norm

ROPE = rope(
    fraction=1.0,
    kinds=("longrope",),
    aliases={"su": "longrope", "yarn": "longrope"},
    original=4096,
)["rope_parameters"]


def _write_rope(name: str, ours: Values) -> dict[str, Any]:
    theirs, scaling = ROPE.write(name, ours), ours["rope_scaling"]
    if scaling is None:
        return theirs
    # older versions know these three names and no others
    known = ("short_factor", "long_factor", "factor", "attention_factor")
    old = {x: theirs["rope_scaling"][x] for x in known if x in theirs["rope_scaling"]}
    theirs["rope_scaling"] = {"type": scaling.kind, **old}
    return theirs | {"original_max_position_embeddings": scaling.original_max_len}


FIELDS: FieldMap = SHARED | {
    "max_position_embeddings": ("max_len", 4096),
    "rms_norm_eps": ("norm_eps", 1e-5),
    "sliding_window": nullable("window", None),
    "resid_pdrop": ("dropout", 0.0),
    # transformers does not use it
    **unused("embd_pdrop"),
    "rope_parameters": Field(ROPE.read, _write_rope),
}
LAYER = {
    **norm("input_layernorm", "attn_norm"),
    "self_attn.qkv_proj.weight": Rule(None, "attn/query", "attn/key", "attn/value", rows=True),
    **linear("self_attn.o_proj", "attn/out"),
    **norm("post_attention_layernorm", "mlp_norm"),
    "mlp.gate_up_proj.weight": Rule("(2 F) D -> D F", "mlp/gate", "mlp/up"),
    **linear("mlp.down_proj", "mlp/down"),
}
PHI3 = family("phi3", "Phi3", FIELDS, LAYER)
