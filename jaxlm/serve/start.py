"""A loaded model as what the endpoints serve."""

from __future__ import annotations

from typing import Any

import jax

from jaxlm.run.language_model import LanguageModel
from jaxlm.serve.limits import Limits
from jaxlm.serve.pieces import Pieces
from jaxlm.serve.served import Served
from jaxlm.serve.worker import Worker


def start(
    model: LanguageModel, *, name: str | None, slots: int, max_len: int | None, limits: Limits
) -> tuple[Served, Worker]:
    """The served model and its worker, whose thread the application starts.

    Raises:
        ValueError: a number is out of range for the model.
    """
    if model.kind == "predictor":
        raise ValueError(
            f"{model.name} neither writes nor embeds texts, and only such models are served"
        )
    is_encoder = model.kind == "encoder"
    engine: Any = None if is_encoder else model.engine(slots=slots, max_len=max_len)
    served = Served(
        name=name or model.name,
        kind=model.kind,
        tokenizer=model.tokenizer,
        engine=engine,
        embed=model.embed if is_encoder else None,
        defaults=model.defaults,
        template=model.chat_template,
        frame=model.frame,
        before=model.before,
        decoder_start=list(model.start) if model.kind == "encoder_decoder" else None,
        is_prefix=model.is_prefix,
        pieces=Pieces(model.tokenizer),
        dim=model.model.config.dim if is_encoder else 0,
        parameters=sum(x.size for x in jax.tree.leaves(model.params)),
    )
    worker = Worker(
        engine, served.embed, slots=slots, queue=limits.queue, warm_up=model.warm_up_embed
    )
    return served, worker
