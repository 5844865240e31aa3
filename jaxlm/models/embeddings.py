"""The input of the first block: the sum of token, position and type embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, TransformerConfig
from jaxlm.nn.layers import Embed, Norm, between_layers, dropout
from jaxlm.ops import positions as position_ops
from jaxlm.ops.linear import linear


class TokenEmbeddings(nn.Module):
    """The sum of a token's embedding, its position's and, for encoders of pairs, its type's."""

    config: TransformerConfig
    compute: ComputeConfig
    num_types: int = 0

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"] | Float[Array, "B T D"],
        positions: Int[Array, "B T"] | None,
        token_types: Int[Array, "B T"] | None = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """Embeddings in the compute dtype; `tokens` may be embeddings of tokens already.

        `positions` are those of the tokens in their text; None where the config has no learned or sinusoidal ones.
        """
        c = self.config
        is_ids = jnp.issubdtype(tokens.dtype, jnp.integer)
        x = Embed(c, self.compute, name="token")(tokens) if is_ids else tokens
        if "embedding" in c.extra_norms and c.embedding_norm == "token":
            x = Norm(c, name="norm")(x)
        init = nn.initializers.normal(c.init_std)
        if c.positions in ("learned", "sinusoidal", "sinusoidal_inclusive"):
            assert positions is not None
            indices = positions + c.position_offset
        if c.positions == "learned":
            shape = (c.max_len + c.position_offset, c.embedding_width)
            table = self.param("position_embedding", init, shape, jnp.float32)
            x = x + table[indices].astype(x.dtype)
        elif c.positions.startswith("sinusoidal"):
            inclusive = c.positions == "sinusoidal_inclusive"
            x = x + position_ops.sinusoidal(indices, x.shape[-1], inclusive=inclusive).astype(
                x.dtype
            )
        if self.num_types:
            shape = (self.num_types, c.embedding_width)
            table = self.param("type_embedding", init, shape, jnp.float32)
            types = jnp.zeros(tokens.shape[:2], int) if token_types is None else token_types
            x = x + table[types].astype(x.dtype)
        if "embedding" in c.extra_norms and c.embedding_norm == "sum":
            x = Norm(c, name="norm")(x)
        # a key of its own: the stack splits the same one for its layers
        rate = c.dropout if c.embedding_dropout is None else c.embedding_dropout
        x = dropout(x, rate, None if key is None else jax.random.fold_in(key, 0xE))
        if c.embedding_width != c.dim:
            kernel = self.param("project", init, (c.embedding_width, c.dim), jnp.float32)
            bias = self.param("project_bias", nn.initializers.zeros, (c.dim,), jnp.float32)
            x = linear(x, kernel, bias)
        return between_layers(x, self.compute)
