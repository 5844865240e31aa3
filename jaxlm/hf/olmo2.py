"""OLMo 2 (2501.00656): Llama with the norms on the outputs of attention and MLP, and over whole queries and keys."""

from __future__ import annotations

from jaxlm.hf.llama import ATTENTION_BIAS, LAYER, SHARED, family
from jaxlm.hf.table import norm

OUTPUT_LAYER = {
    **{name: rule for name, rule in LAYER.items() if "layernorm" not in name},
    **norm("post_attention_layernorm", "attn_out_norm"),
    **norm("post_feedforward_layernorm", "mlp_out_norm"),
}
OLMO2 = family(
    "olmo2",
    "Olmo2",
    SHARED | ATTENTION_BIAS | {"rms_norm_eps": ("norm_eps", 1e-5)},
    OUTPUT_LAYER,
    tokens=None,
    norm_place="out",
    extra_norms=("qk_whole", "final"),
)
