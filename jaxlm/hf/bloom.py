"""BLOOM (Le Scao et al. 2022, 2211.05100): ALiBi, and a norm of the embeddings."""

from __future__ import annotations

from typing import Any

from jaxlm.hf.family import decoder
from jaxlm.hf.fields import Field, FieldMap, Values, fixed, unused
from jaxlm.hf.gpt_neox import layer
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import norm, within


def _older(name: str, default: int, ours: str) -> Field:
    """A size that has another name, `name`, in older files, where it comes first."""

    def read(settings: Settings, newer: str, values: Values) -> Values:
        size = settings.typed(newer, default)
        return {ours: settings.typed(name, size)}

    def write(newer: str, values: Values) -> dict[str, Any]:
        return {newer: values[ours]}

    return Field(read, write)


FIELDS: FieldMap = {
    "vocab_size": ("vocab_size", 250_880),
    "hidden_size": _older("n_embed", 64, "dim"),
    "n_layer": _older("num_hidden_layers", 2, "num_layers"),
    "n_head": _older("num_attention_heads", 8, "num_heads"),
    # of the training; there is no limit, and transformers has no such field
    "seq_length": ("max_len", 2048),
    "layer_norm_epsilon": ("norm_eps", 1e-5),
    "apply_residual_connection_post_layernorm": fixed(False),
    "tie_word_embeddings": ("tie_embeddings", True),
    "hidden_dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("init_std", 0.02),
    # how products are split over devices, in which order in half precision
    **unused("pretraining_tp", "slow_but_exact", "attention_softmax_in_fp32", "skip_bias_add"),
    **unused("bias_dropout_fusion", "masked_softmax_fusion", "skip_bias_add_qkv", "offset_alibi"),
    **unused("classifier_dropout"),
}
BLOOM = decoder(
    "bloom",
    "Bloom",
    tokens="classifier",
    span=True,
    prefix="transformer.",
    fields=FIELDS,
    style=dict(positions="alibi", extra_norms=("embedding", "final")),
    # in a padded row, as they are counted along the mask
    positions="mask",
    table={
        "word_embeddings.weight": "backbone/embed/token/embedding",
        **norm("word_embeddings_layernorm", "backbone/embed/norm"),
        **within("h.{i}.", "backbone/stack/blocks/", layer("self_attention")),
        **norm("ln_f", "backbone/final_norm"),
    },
)
