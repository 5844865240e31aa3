"""StableLM (Bellagente et al. 2024, 2402.17834): Llama with layer norms, partial rotary positions, parallel blocks."""

from __future__ import annotations

from jaxlm.hf.fields import FieldMap
from jaxlm.hf.llama import LAYER, SHARED, family
from jaxlm.hf.rope import rope

FIELDS: FieldMap = {
    # the width of a head follows from the others
    **{name: rule for name, rule in SHARED.items() if name not in ("rms_norm_eps", "head_dim")},
    "layer_norm_eps": ("norm_eps", 1e-5),
    "max_position_embeddings": ("max_len", 4096),
    "use_qkv_bias": ("biases.qkv", False),
    "qk_layernorm": ("extra_norms.qk_by_head", False),
    "use_parallel_residual": (("parallel_block", "shared_norm"), False),
    # of the MLP alone there; here of attention too
    "hidden_dropout": ("dropout", 0.0),
    **rope(fraction=0.25),
}
STABLELM = family(
    "stablelm",
    "StableLm",
    FIELDS,
    LAYER
    | {
        "self_attn.q_layernorm.norms.{n}.weight": "attn/q_norm/head_scale",
        "self_attn.k_layernorm.norms.{n}.weight": "attn/k_norm/head_scale",
    },
    norm="layer_norm",
    biases=("norm",),
)
