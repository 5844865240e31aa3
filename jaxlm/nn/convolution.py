"""The convolution beside the first block of DeBERTa v2 (He et al. 2020, 2006.03654, appendix A.1).

Letters: B batch, T positions, D model width, K width of the convolution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import EncoderConfig, TransformerConfig
from jaxlm.nn.layers import ACTIVATIONS, Norm, dropout
from jaxlm.ops.linear import linear


class Convolution(nn.Module):
    """Adds a convolution of a block's input to its output, and normalises the sum."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        y: Float[Array, "B T D"],
        segment_ids: Int[Array, "B T"] | None,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """The norm of y + activation(convolution of x), which sees no token of another text and no padding.

        Args:
            x: the block's input.
            y: its output.
            segment_ids: which text a token belongs to; None: all to one.
            key: random key for dropout; None: no dropout.
        """
        c = self.config
        assert isinstance(c, EncoderConfig) and c.convolution is not None
        init, shape = nn.initializers.normal(c.init_std), (c.convolution, c.dim, c.dim)
        taps = self.param("taps", init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c.dim,), jnp.float32)
        key = None if key is None else jax.random.fold_in(key, 0xC0)
        name = c.convolution_activation
        activation = jnp.tanh if name == "tanh" else ACTIVATIONS[name]
        z = dropout(convolve(x, taps, bias, segment_ids), c.dropout, key)
        return Norm(c, name="norm")(y + activation(z))


def has_convolution(config: TransformerConfig) -> bool:
    """Whether the first block has one."""
    return isinstance(config, EncoderConfig) and config.convolution is not None


def convolve(
    x: Float[Array, "B T D"],
    taps: Float[Array, "K D D"],
    bias: Float[Array, " D"],
    segment_ids: Int[Array, "B T"] | None,
) -> Float[Array, "B T D"]:
    """For each token the sum of the products with its K // 2 neighbours on either side, within its text.

    Tap k is that of the neighbour at distance k - K // 2.
    """
    half, length = len(taps) // 2, x.shape[1]
    if segment_ids is None:
        segment_ids = jnp.ones(x.shape[:2], jnp.int32)
    around = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
    # no text has the number -1
    texts = jnp.pad(segment_ids, ((0, 0), (half, half)), constant_values=-1)
    y = jnp.broadcast_to(bias.astype(x.dtype), x.shape)
    for k in range(len(taps)):
        is_same = texts[:, k : k + length] == segment_ids
        neighbours = jnp.where(is_same[..., None], around[:, k : k + length], 0)
        y = y + linear(neighbours, taps[k])
    return y
