"""UMT5 (Chung et al. 2023, 2304.09151), and the encoders of the T5 family by themselves."""

from __future__ import annotations

import dataclasses

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import CLASSES
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import fixed, unused
from jaxlm.hf.t5 import MT5, T5
from jaxlm.hf.table import Table, rename, within

_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
_OF_BOTH_SIDES = ("num_decoder_layers", "is_encoder_decoder", "scale_decoder_outputs")


def _with_bias_by_layer(table: Table) -> Table:
    """The table of T5 with a bias in each layer instead of one in the first."""
    shared = {name: rule for name, rule in table.items() if not name.endswith(_BIAS)}
    for side in ("encoder", "decoder"):
        ours = f"backbone/{side}/stack/blocks/attn/relative_bias"
        shared |= within(f"{side}.block.{{i}}.", "", {_BIAS: ours})
    return shared


UMT5 = dataclasses.replace(
    MT5,
    model_type="umt5",
    base="UMT5Model",
    fields=MT5.fields | {"scale_decoder_outputs": T5.fields["scale_decoder_outputs"]},
    style={**MT5.style, "relative_scores": "by_layer"},
    table=_with_bias_by_layer(MT5.table),
    heads={name.replace("MT5", "UMT5"): head for name, head in MT5.heads.items()},
)


def _encoder(family: Family, name: str, *, says_both: bool = False) -> Family:
    """The class with the encoder alone, and its head for tokens; `says_both`: its files have is_encoder_decoder."""
    table = {
        theirs: rename(rule, "backbone/encoder/", "backbone/")
        for theirs, rule in family.table.items()
        if not theirs.startswith("decoder.")
    }
    return dataclasses.replace(
        family,
        config=EncoderConfig,
        base=f"{name}EncoderModel",
        prefix="transformer.",
        fields={
            **{x: rule for x, rule in family.fields.items() if x not in _OF_BOTH_SIDES},
            "is_encoder_decoder": fixed(says_both, not says_both, write=True),
            **unused("num_decoder_layers", "scale_decoder_outputs"),
        },
        style={**family.style, "num_token_types": 0},
        table=table,
        heads={f"{name}ForTokenClassification": Head("tokens", CLASSES)},
        twins={"encoder.embed_tokens.weight": "shared.weight"},
        ignored=(r"decoder\..*", r"lm_head\.weight"),
    )


T5_ENCODER = _encoder(T5, "T5")
MT5_ENCODER = _encoder(MT5, "MT5")
UMT5_ENCODER = _encoder(UMT5, "UMT5", says_both=True)
