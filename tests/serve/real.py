"""Tiny models with random weights on the real engine."""

import dataclasses
import functools

import stub
from styles import ENCODER_DECODERS, STYLES, language_model, random_params

from jaxlm.generation.engine import Engine
from jaxlm.generation.settings import Settings
from jaxlm.serve.pieces import Pieces
from jaxlm.serve.served import Served

MAX_LEN = 256


@functools.cache
def parts(kind):
    """Tokenizer, model and parameters of a decoder or an encoder-decoder."""
    tokenizer = stub.make_tokenizer()
    config = STYLES["llama"] if kind == "decoder" else ENCODER_DECODERS["t5"]
    model = language_model(
        dataclasses.replace(config, vocab_size=tokenizer.vocab_size, max_len=MAX_LEN, num_layers=1)
    )
    return tokenizer, model, random_params(model)


def served(kind="decoder", slots=4):
    """The model as it is served."""
    tokenizer, model, params = parts(kind)
    return Served(
        name=f"tiny-{kind}",
        kind=kind,
        tokenizer=tokenizer,
        engine=Engine(model, params, tokenizer=tokenizer, slots=slots),
        embed=None,
        defaults=Settings(stop_ids=(tokenizer.eos_id,)),
        template=stub.TEMPLATE if kind == "decoder" else None,
        frame=tokenizer.encode,
        decoder_start=None if kind == "decoder" else [tokenizer.pad_id],
        pieces=Pieces(tokenizer),
    )
