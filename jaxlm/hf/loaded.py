"""A loaded model that is called like the models of transformers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from jaxlm.config import EncoderDecoderConfig, ModelConfig
from jaxlm.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model with its parameters.

    `model.apply({"params": params}, tokens, ...)` is the functional form; `config` is the jaxlm config, `settings` the
    contents of config.json.
    """

    model: nn.Module
    params: Any
    config: ModelConfig
    # None: the folder has no supported tokenizer
    tokenizer: Tokenizer | None
    settings: dict[str, Any]
    mesh: Mesh | None = None
    # how default positions are computed, see `family.Family`
    positions: Literal["row", "mask", "pad_token"] = "row"

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
    ) -> jax.Array:
        """Logits in float32, or the last hidden states if the model has no head.

        Logits are [B, T, V] for a language model, [B, C] for a classifier, [B, T, C] for a token classifier, [B, T, 2]
        (first and last token of the answer) for question answering; hidden states are [B, T, D].

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 1 on text and 0 on padding; outputs at padding are meaningless.
            token_type_ids: [B, T], 0 on the first text of a pair and 1 on the second.
            position_ids: [B, T], starting at 0 in all families; None: the same positions as in transformers.
            decoder_input_ids: [B, T], for an encoder-decoder only; T may differ from that of `input_ids`, the source.
            decoder_attention_mask: [B, T], 1 on text and 0 on padding.
        """
        tokens, segments = _text(input_ids, attention_mask, "")
        inputs: dict[str, Any] = dict(segment_ids=segments)
        if isinstance(self.config, EncoderDecoderConfig) != (decoder_input_ids is not None):
            raise ValueError(
                "decoder_input_ids must be given for an encoder-decoder and for no other model"
            )
        if decoder_input_ids is not None:
            decoder_tokens, segments = _text(decoder_input_ids, decoder_attention_mask, "decoder_")
            inputs |= dict(decoder_tokens=decoder_tokens, decoder_segment_ids=segments)
        if token_type_ids is not None:
            inputs["token_types"] = np.asarray(token_type_ids, np.int32)
        if position_ids is not None:
            inputs["positions"] = np.asarray(position_ids, np.int32)
        elif self.positions != "row":
            counted = segments > 0 if self.positions == "mask" else tokens != self._pad_token
            # works for padding on the left and on the right
            inputs["positions"] = np.maximum(counted.cumsum(1, dtype=np.int32) - 1, 0)
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            return self._apply(self.params, tokens, inputs)

    @property
    def _pad_token(self) -> int:
        """RoBERTa's padding token; its first position is this id + 1."""
        return self.settings.get("pad_token_id", self.config.position_offset - 1)

    @functools.cached_property
    def _apply(self) -> Callable[..., jax.Array]:
        def run(params, tokens, inputs):
            return self.model.apply({"params": params}, tokens, **inputs).astype(jnp.float32)

        return jax.jit(run)


def _text(input_ids: Any, attention_mask: Any, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and segments that are 1 on text and 0 on padding."""
    tokens = np.asarray(input_ids, np.int32)
    mask = np.ones_like(tokens) if attention_mask is None else np.asarray(attention_mask)
    if tokens.ndim != 2 or mask.shape != tokens.shape:
        raise ValueError(
            f"{side}input_ids and {side}attention_mask must be [B, T], not {tokens.shape} and {mask.shape}"
        )
    return tokens, (mask > 0).astype(np.int32)
