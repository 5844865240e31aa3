"""GPT-J (Wang and Komatsuzaki 2021): rotary positions of neighbouring dims, parallel blocks, a bias of the logits."""

from __future__ import annotations

import math

from jaxlm.hf.family import decoder
from jaxlm.hf.fields import FieldMap, Values, field, fixed, unused, written
from jaxlm.hf.gpt2 import SHARED
from jaxlm.hf.table import attention, linear, norm, within


def _fraction(rotary_dim: int, ours: Values) -> float:
    """The fraction of a head, such that the head's width times it is not rounded down to less than `rotary_dim`."""
    width = ours["dim"] // ours["num_heads"]
    fraction = rotary_dim / width
    return fraction if int(width * fraction) == rotary_dim else math.nextafter(fraction, 2)


FIELDS: FieldMap = SHARED | {
    "vocab_size": ("vocab_size", 50400),
    "n_embd": ("dim", 4096),
    "n_layer": ("num_layers", 28),
    "n_head": ("num_heads", 16),
    "n_inner": ("mlp_dim", lambda ours: 4 * ours["dim"]),
    "n_positions": ("max_len", 2048),
    "n_ctx": written("max_len"),
    "rotary_dim": field(
        "rope_fraction",
        64,
        least=2,
        read=_fraction,
        write=lambda fraction, ours: int(ours["head_dim"] * fraction),
    ),
    "rotary": fixed(True),
    "tie_word_embeddings": ("tie_embeddings", False),
    "resid_pdrop": ("dropout", 0.0),
    "embd_pdrop": ("embedding_dropout", 0.0),
    "attn_pdrop": ("attention_dropout", 0.0),
    **unused("scale_attn_weights", "summary_activation", "summary_first_dropout"),
    **unused("summary_proj_to_labels", "summary_type", "summary_use_proj"),
}
LAYER = {
    **norm("ln_1", "attn_norm"),
    **attention("attn.{}_proj", "attn"),
    **linear("mlp.fc_in", "mlp/up"),
    **linear("mlp.fc_out", "mlp/down"),
}
GPTJ = decoder(
    "gptj",
    "GPTJ",
    span=True,
    prefix="transformer.",
    fields=FIELDS,
    style=dict(
        positions="rotary",
        rope_pairs="neighbours",
        parallel_block=True,
        shared_norm=True,
        biases=("norm", "mlp"),
        logit_bias=True,
    ),
    table={
        "wte.weight": "backbone/embed/token/embedding",
        **within("h.{i}.", "backbone/stack/blocks/", LAYER),
        **norm("ln_f", "backbone/final_norm"),
    },
    # the causal mask, stored with every layer in old files
    ignored=(r"h\.\d+\.attn\.(masked_)?bias",),
)
