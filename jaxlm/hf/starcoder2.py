"""StarCoder 2 (Lozhkov et al. 2024, 2402.19173): Mistral with layer norms, biases, and an MLP without a gate."""

from __future__ import annotations

from jaxlm.hf.fields import FieldMap, activation, nullable
from jaxlm.hf.llama import ATTENTION, SHARED, family
from jaxlm.hf.table import linear

FIELDS: FieldMap = {
    **{name: rule for name, rule in SHARED.items() if name != "rms_norm_eps"},
    "num_key_value_heads": ("num_kv_heads", 2),
    "norm_epsilon": ("norm_eps", 1e-5),
    "max_position_embeddings": ("max_len", 4096),
    "hidden_act": activation("gelu_pytorch_tanh"),
    "tie_word_embeddings": ("tie_embeddings", True),
    "use_bias": (("biases.qkv", "biases.attn_out", "biases.mlp"), True),
    "sliding_window": nullable("window", None),
    "residual_dropout": ("dropout", 0.0),
    "embedding_dropout": ("embedding_dropout", 0.0),
    "initializer_range": ("init_std", 0.018042),
}
LAYER = ATTENTION | linear("mlp.c_fc", "mlp/up") | linear("mlp.c_proj", "mlp/down")
STARCODER2 = family(
    "starcoder2",
    "Starcoder2",
    FIELDS,
    LAYER,
    norm="layer_norm",
    activation="gelu_tanh",
    biases=("norm",),
)
