"""A backbone that maps a text to one vector.

Letters: B batch, S texts of a row, T positions, D model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, DecoderConfig, EncoderConfig
from jaxlm.models.backbones import last_hidden, make_backbone
from jaxlm.models.classifiers import pool
from jaxlm.ops import contrastive, moe
from jaxlm.sharding import batch_shards, constrain

Pooling = Literal["first", "last", "mean"]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """How a model makes the vector of a text from its hidden states."""

    pooling: Pooling = "mean"
    # whether vectors are scaled to length 1
    normalize: bool = True
    # tokens, control tokens included, to which a longer text is cut; None: those that the model can read
    max_len: int | None = None
    # texts that are put before a text, by name, and the name of the one that is used if nothing is said
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    default_prompt: str | None = None

    def prompt_of(self, *names: str) -> str:
        """The prompt of the first of these names that there is, or the default one."""
        name = next((name for name in names if name in self.prompts), self.default_prompt)
        return self.prompts.get(name or "", "")

    def text(self, text: str, prompt: str | None = None) -> str:
        """The text after a prompt.

        Args:
            text: to embed.
            prompt: name of a prompt; default: the model's own, if it has one.

        Raises:
            ValueError: there is no such prompt.
        """
        name = self.default_prompt if prompt is None else prompt
        if name is not None and name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            raise ValueError(f"no prompt {name!r}; the model's are: {known}")
        return self.prompts.get(name or "", "") + text


class Embedder(nn.Module):
    """A backbone, and the vector of the text: of the first token, of the last one, or the mean of all."""

    config: DecoderConfig | EncoderConfig
    pooling: Pooling = "mean"
    normalize: bool = True
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the backbone."""
        self.backbone = make_backbone(self.config, self.compute)

    def __call__(
        self, tokens: Int[Array, "B T"], *, segment_ids: Int[Array, "B T"], **inputs: Any
    ) -> Float[Array, "B D"]:
        """Vectors in float32; `segment_ids` is 1 on the text and 0 on the padding."""
        hidden = last_hidden(self.backbone(tokens, segment_ids=segment_ids, **inputs))
        hidden = hidden.astype(jnp.float32)
        if not self.normalize:
            return pool(hidden, segment_ids > 0, self.pooling)
        if self.pooling == "mean":
            # the sum: its length cancels
            is_text = (segment_ids > 0).astype(jnp.float32)
            return contrastive.unit(jnp.einsum("BTD,BT->BD", hidden, is_text))
        return contrastive.unit(pool(hidden, segment_ids > 0, self.pooling))


def embed_rows(
    model: Embedder,
    params: Any,
    tokens: Int[Array, "B S T"],
    segment_ids: Int[Array, "B S T"],
    *,
    key: Array | None = None,
    parts: int = 1,
) -> Float[Array, "B S D"]:
    """The vectors of the texts of each row.

    With several parts, one is computed at a time, and again for the gradient, so that the hidden states of only one
    part are in memory (GradCache: Gao et al. 2021, 2101.06983).

    Args:
        model: an `Embedder`.
        params: its parameters.
        tokens: S texts a row.
        segment_ids: 1 on a text and 0 on its padding.
        key: random key for dropout; None: no dropout.
        parts: number of parts of the rows.

    Raises:
        ValueError: the rows of a part are no multiple of the devices.
    """
    rows, sides, length = tokens.shape

    def embed(tokens: Array, segment_ids: Array, key: Array | None) -> Any:
        flat = tokens.reshape(-1, length), segment_ids.reshape(-1, length)
        vectors: Any = model.apply({"params": params}, flat[0], segment_ids=flat[1], key=key)
        return vectors.reshape(-1, sides, vectors.shape[-1])

    if parts == 1:
        return embed(tokens, segment_ids, key)
    if rows // parts % batch_shards():
        raise ValueError(
            f"task.parts={parts}: the {rows // parts} rows of a part are no multiple of the {batch_shards()} devices "
            "of mesh.data x mesh.fsdp x mesh.expert: lower it"
        )

    def split(x: Array) -> Array:
        # every part has rows of all devices
        x = x.reshape(rows // parts, parts, sides, length).swapaxes(0, 1)
        return constrain(x, None, "batch", None, None)

    def one(part: Any) -> Array:
        tokens, segment_ids, index = part
        own = None if key is None else jax.random.fold_in(key, index)
        with moe.loss_weight_of_part(parts):
            return embed(tokens, segment_ids, own)

    split_rows = split(tokens), split(segment_ids), jnp.arange(parts)
    vectors = jax.lax.map(jax.checkpoint(one), split_rows)
    return vectors.swapaxes(0, 1).reshape(rows, sides, -1)
