"""Pegasus (Zhang et al. 2020, 1912.08777) and Blenderbot (Roller et al. 2021, 2004.13637), which are BART but for norms
and positions."""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderDecoderConfig
from jaxlm.hf.bart import BART, HEAD, IGNORED, SINES, TABLE, TWINS, WITHOUT_POSITIONS
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import fixed, unused


def _family(model_type: str, name: str, *, max_len: int, variant: str, **style: Any) -> Family:
    is_learned = style["positions"] == "learned"
    return Family(
        model_type=model_type,
        config=EncoderDecoderConfig,
        base=f"{name}Model",
        prefix="model.",
        fields={
            **BART.fields,
            "max_position_embeddings": ("max_len", max_len),
            # from ParlAI; implied by the class
            "layernorm_variant": fixed(variant),
            **unused("do_blenderbot_90_layernorm", "extra_layer_norm"),
            **unused("encoder_no_repeat_ngram_size"),
        },
        style=dict(logit_bias=True) | style,
        table=TABLE if is_learned else WITHOUT_POSITIONS,
        twins=TWINS,
        heads={f"{name}ForConditionalGeneration": Head("seq2seq", HEAD)},
        sines=() if is_learned else SINES,
        ignored=IGNORED,
    )


PEGASUS = _family(
    "pegasus",
    "Pegasus",
    max_len=1024,
    variant="prelayernorm",
    norm_place="pre",
    extra_norms=("final",),
    positions="sinusoidal",
)
BLENDERBOT = _family(
    "blenderbot",
    "Blenderbot",
    max_len=128,
    variant="prelayernorm",
    norm_place="pre",
    extra_norms=("final",),
    positions="learned",
)
BLENDERBOT_SMALL = _family(
    "blenderbot-small",
    "BlenderbotSmall",
    max_len=512,
    variant="xlm",
    norm_place="post",
    extra_norms=("embedding",),
    decoder_embedding_norm="token",
    # transformers computes the decoder's scale but does not apply it
    decoder_scale_embeddings=False,
    positions="learned",
)
