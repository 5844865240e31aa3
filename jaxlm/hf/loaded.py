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

from jaxlm.config import ModelConfig
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads


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
    ) -> Any:
        """Logits in float32, or the last hidden states if the model has no head.

        Logits are [B, T, V] for a language model, [B, C] for a classifier, [B, T, C] for a token classifier, [B, T, 2]
        (first and last token of the answer) for question answering; hidden states are [B, T, D]. BertForPreTraining and
        AlbertForPreTraining have two: [B, T, V], and [B, 2] of a pair of texts, first that they are in order.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 1 on text and 0 on padding; outputs at padding are meaningless.
            token_type_ids: [B, T], 0 on the first text of a pair and 1 on the second.
            position_ids: [B, T], starting at 0 in all families; None: the same positions as in transformers.
            decoder_input_ids: [B, T], for an encoder-decoder only; T may differ from that of `input_ids`, the source.
            decoder_attention_mask: [B, T], 1 on text and 0 on padding.
        """
        tokens, segments = self._text(input_ids, attention_mask, "")
        if getattr(self.model, "pooling", None) == "first" and not segments[:, 0].all():
            raise ValueError(
                "attention_mask: the model classifies by the first token, which is padding here: pad on the right"
            )
        inputs: dict[str, Any] = dict(segment_ids=segments)
        if heads.needs_target(self.model) != (decoder_input_ids is not None):
            raise ValueError(
                "decoder_input_ids must be given for an encoder-decoder that does not classify and for no other model"
            )
        if isinstance(self.model, heads.TwiceReadClassifier):
            ends = (tokens == self.model.reading.end).sum(1)
            if not ends.all() or len(set(ends.tolist())) > 1:
                raise ValueError(
                    f"input_ids: each text must have the same number of ends (token {self.model.reading.end}), at "
                    "least one: the model classifies by the last"
                )
        if decoder_input_ids is not None:
            decoder_tokens, decoder_segments = self._text(
                decoder_input_ids, decoder_attention_mask, "decoder_"
            )
            inputs |= dict(decoder_tokens=decoder_tokens, decoder_segment_ids=decoder_segments)
            inputs["decoder_positions"] = self._positions(decoder_tokens, decoder_segments)
        if token_type_ids is not None:
            types = getattr(self.config, "num_token_types", 0)
            inputs["token_types"] = _in_range("token_type_ids", token_type_ids, max(types, 1))
        if position_ids is None:
            inputs["positions"] = self._positions(tokens, segments)
        else:
            limit = self.config.max_len if self._has_table else None
            inputs["positions"] = _in_range("position_ids", position_ids, limit)
        inputs = {name: value for name, value in inputs.items() if value is not None}
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            return self._apply(self.params, tokens, inputs)

    def _positions(self, tokens: np.ndarray, segments: np.ndarray) -> np.ndarray | None:
        """Positions that are not counted along the row; None: they are."""
        if self.positions == "row":
            return None
        if self.positions == "mask":
            counted = segments > 0
        else:
            # the first position of RoBERTa and M2M100 is the padding token's id + 1; MPNet's is 2 whatever that id is
            counted = tokens != self.config.position_offset - 1
            if not self._has_table and (~counted & (segments > 0)).any():
                raise ValueError(
                    "the attention mask counts padding tokens as text, which have no position in this model: pass a "
                    "mask that is 0 there"
                )
        # works for padding on the left and on the right
        positions = np.maximum(counted.cumsum(1, dtype=np.int32) - 1, 0)
        if self.positions == "pad_token" and self._has_table:
            # the padding token has a row of its own, before that of the first position
            return np.where(counted, positions, -1)
        return positions

    @property
    def _has_table(self) -> bool:
        """Whether positions are rows of a table, so that there are only `max_len`."""
        return self.config.positions == "learned"

    def _text(
        self, input_ids: Any, attention_mask: Any, side: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, and segments that are 1 on text and 0 on padding."""
        tokens = _in_range(f"{side}input_ids", input_ids, self.config.vocab_size)
        mask = np.ones_like(tokens) if attention_mask is None else np.asarray(attention_mask)
        if tokens.ndim != 2 or mask.shape != tokens.shape:
            raise ValueError(
                f"{side}input_ids and {side}attention_mask must be [B, T], not {tokens.shape} and {mask.shape}"
            )
        if self._has_table and tokens.shape[1] > self.config.max_len:
            raise ValueError(
                f"{side}input_ids has {tokens.shape[1]} tokens, but the model has positions for {self.config.max_len}"
            )
        return tokens, (mask > 0).astype(np.int32)

    @functools.cached_property
    def _apply(self) -> Callable[..., Any]:
        def run(params, tokens, inputs):
            outputs: Any = self.model.apply({"params": params}, tokens, **inputs)
            return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)

        return jax.jit(run)


def _in_range(name: str, values: Any, limit: int | None) -> np.ndarray:
    """The values as int32; JAX would silently take the nearest row of a table for others than 0 ... limit - 1."""
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    if array.size and (array.min() < 0 or (limit is not None and array.max() >= limit)):
        wrong = array.min() if array.min() < 0 else array.max()
        last = "" if limit is None else f" ... {limit - 1}"
        raise ValueError(f"{name} has {wrong}, which is not in 0{last}")
    return array.astype(np.int32)
