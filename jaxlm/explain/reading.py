"""What a model answers about a text, as functions of the embeddings of its tokens: what all methods explain.

The score of an answer is its log odds in nats: for a class or a token ln p / (1 - p), or, against another one, the
difference of the two logits; for a label among several its logit; for a number the number. Unlike a probability it
does not become flat where the model is sure.

Letters: B rows, T positions, D width of the embeddings, C answers (classes, or tokens of the vocabulary).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import EncoderDecoderConfig
from jaxlm.explain.gradients import Inputs
from jaxlm.models.heads import unembedding, unembedding_bias
from jaxlm.models.language_models import logits
from jaxlm.models.observe import observe
from jaxlm.nn.layers import look_up, with_adapter
from jaxlm.nn.moe import has_experts
from jaxlm.nn.tap import Edit

Kind = Literal["classes", "labels", "number", "next token", "masked token", "target token"]
# passes that are computed together
TOGETHER = 16
LANGUAGE_MODELS = ("next token", "masked token", "target token")
# the inputs whose tokens attributions are for, and the tables of their embeddings
TABLES = {"tokens": "embed", "decoder_tokens": "decoder_embed"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A model and what it is asked; static."""

    model: Any
    kind: Kind
    # its embedding stands for a token that is absent; None: the mean of all embeddings
    mask_id: int | None = None
    # of a language model: ids from this one on are padding of the table, and no answers
    vocab_size: int | None = None

    @property
    def has_source(self) -> bool:
        """Whether it writes a target from a source."""
        return self.kind == "target token"

    @property
    def together(self) -> int | None:
        """Number of passes that are computed together; None: one after another."""
        return together(self.model.config)

    @property
    def stack(self) -> str:
        """Prefix of the places in the stack that gives the answer."""
        if not isinstance(self.model.config, EncoderDecoderConfig):
            return ""
        return "decoder." if self.has_source else "encoder."

    @property
    def num_layers(self) -> int:
        """Layers of the stack that gives the answer."""
        config = self.model.config
        if isinstance(config, EncoderDecoderConfig):
            config = config.decoder if self.has_source else config.encoder
        return config.num_layers


def together(config: Any) -> int | None:
    """Number of passes that are computed together; None: one after another, as `jax.vmap` has no rule for the ragged
    products of experts."""
    return None if has_experts(config) else TOGETHER


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Texts with a question about each."""

    # of the model's call: tokens and segment_ids [B, T], decoder_tokens [B, U], ...
    inputs: dict[str, Array]
    # tokens that may be absent, for each of `TABLES` that is there; control tokens always stay
    free: dict[str, Bool[Array, "B T"]]
    # weight of each position in what the answer is read from: one of them, or the mean; of a target its own
    read_at: Float[Array, "B T"]
    # index of the answer that is explained
    answer: Int[Array, " B"]
    # the answer that it is compared with; -1: all others together
    against: Int[Array, " B"]


def embed(reading: Reading, params: Any, rows: Rows) -> Inputs:
    """Embeddings [B, T, D] of the tokens, which the model takes in their place."""
    model = reading.model
    return {
        name: look_up(table, rows.inputs[name], model.config, model.compute)
        for name, table in _tables(params, rows.free).items()
    }


def absent(reading: Reading, params: Any, rows: Rows) -> Inputs:
    """The embedding [D] that stands for an absent token of each input."""
    model, found = reading.model, {}
    for name, table in _tables(params, rows.free).items():
        ids = jnp.arange(len(getattr(table, "kernel", table)))[: reading.vocab_size]
        if reading.mask_id is not None:
            ids = ids[reading.mask_id][None]
        found[name] = look_up(table, ids, model.config, model.compute).mean(0)
    return found


def _tables(params: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    backbone = params["backbone"]
    found = {name: backbone.get(TABLES[name], backbone["embed"]) for name in names}
    return {name: with_adapter(part["token"], "embedding") for name, part in found.items()}


def baseline(x: Inputs, nothing: Inputs, rows: Rows) -> Inputs:
    """The embeddings of the text without any of its tokens: only the control tokens are left."""
    return {name: jnp.where(rows.free[name][..., None], nothing[name], e) for name, e in x.items()}


def outputs(
    reading: Reading,
    params: Any,
    rows: Rows,
    x: Inputs | None = None,
    *,
    capture: tuple[str, ...] = (),
    edits: Mapping[str, Edit] | None = None,
) -> tuple[Float[Array, "B C"], dict[str, Array]]:
    """Logits of the answers, and captured values as of `models.observe`.

    Args:
        reading: the model.
        params: its parameters.
        rows: the texts.
        x: embeddings to use; default: those of the texts.
        capture: names of places.
        edits: place -> what is changed there.
    """
    model: nn.Module = reading.model
    inputs: dict[str, Any] = rows.inputs | (x or {})
    if reading.kind not in LANGUAGE_MODELS:
        return observe(model, params, capture=capture, edits=edits, **inputs)
    hidden, seen = observe(model, params, capture=capture, edits=edits, method="hidden", **inputs)
    # at one position: no logits of the others
    hidden = jnp.einsum("BTD,BT->BD", hidden, rows.read_at)[:, None]
    softcap = getattr(reading.model.config, "logit_softcap", None)
    bias = unembedding_bias(params)
    found = logits(hidden, unembedding(params), bias=bias, softcap=softcap)[:, 0]
    # cut, as minus infinity would make a divergence of two answers NaN
    return found[:, : reading.vocab_size], seen


def score(reading: Reading, logits: Float[Array, "B C"], rows: Rows) -> Float[Array, " B"]:
    """The score of each row's answer in nats."""
    own = jnp.take_along_axis(logits, rows.answer[:, None], axis=1)[:, 0]
    if reading.kind in ("labels", "number"):
        return own
    is_own = jnp.arange(logits.shape[1]) == rows.answer[:, None]
    others = jax.nn.logsumexp(jnp.where(is_own, -jnp.inf, logits), axis=1)
    one = jnp.take_along_axis(logits, jnp.maximum(rows.against, 0)[:, None], axis=1)[:, 0]
    return own - jnp.where(rows.against < 0, others, one)


def probability(reading: Reading, logits: Float[Array, "B C"], rows: Rows) -> Float[Array, " B"]:
    """The probability of each row's answer; of a number the number."""
    own = jnp.take_along_axis(probabilities(reading, logits), rows.answer[:, None], axis=1)
    return own[:, 0]


def probabilities(reading: Reading, logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """The probability of each answer; of a number the number."""
    if reading.kind == "number":
        return logits
    return jax.nn.sigmoid(logits) if reading.kind == "labels" else jax.nn.softmax(logits, axis=-1)
