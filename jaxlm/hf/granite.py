"""Granite 3 (IBM 2024): Llama with factors on embeddings, residual branches, attention scores and logits."""

from __future__ import annotations

from jaxlm.hf.fields import field
from jaxlm.hf.llama import ATTENTION_BIAS, SHARED, family

GRANITE = family(
    "granite",
    "Granite",
    SHARED
    | ATTENTION_BIAS
    | {
        "mlp_bias": ("biases.mlp", False),
        "embedding_multiplier": ("embedding_scale", 1.0),
        "residual_multiplier": ("residual_scale", 1.0),
        "attention_multiplier": ("attention_scale", 1.0),
        # a divisor
        "logits_scaling": field(
            "logit_scale",
            1.0,
            read=lambda divisor, ours: 1 / divisor,
            write=lambda scale, ours: float(f"{1 / scale:.12g}"),
        ),
    },
    tokens=None,
    has_classifier=False,
)
