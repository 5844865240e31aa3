"""The encoder: a stack in which every token attends to the whole text; BERT by default.

Letters: B batch, T positions, D model width.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, EncoderConfig
from jaxlm.models.embeddings import TokenEmbeddings
from jaxlm.nn.layers import Norm
from jaxlm.nn.tap import Tap
from jaxlm.nn.transformer import Stack
from jaxlm.ops import masks


class Encoder(nn.Module):
    """Tokens to hidden states, each depending on all tokens of its segment."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"] | Float[Array, "B T D"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        token_types: Int[Array, "B T"] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states.

        Args:
            tokens: ids, or embeddings of tokens.
            segment_ids: which text of a packed row a token belongs to; 0 is padding. None: one text a row, no padding.
            positions: index of each token in its text; None: its index in the row.
            token_types: 0 for the first text of a pair, 1 for the second; None: all 0.
            key: random key for dropout; None: no dropout.
            tap: reads and changes values inside, see `models.observe`.
        """
        c = self.config
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        mask = masks.Mask(q_segment_ids=segment_ids, kv_segment_ids=segment_ids)
        x = TokenEmbeddings(c, self.compute, c.num_token_types, name="embed")(
            tokens, positions, token_types, key=key
        )
        x, _ = Stack(c, self.compute, name="stack")(
            x, mask, token_positions=positions, key=key, tap=tap
        )
        return Norm(c, name="final_norm")(x) if "final" in c.extra_norms else x
