"""The encoder-decoder: a decoder that attends to an encoder's states; the 2017 Transformer, T5 or BART by its config.

Letters: B batch, S positions of the source, T positions of the target, D model width.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, EncoderDecoderConfig
from jaxlm.models.decoder import Decoder
from jaxlm.models.embeddings import TokenEmbeddings
from jaxlm.models.encoder import Encoder
from jaxlm.nn.attention import Cache
from jaxlm.nn.layers import split_key
from jaxlm.nn.tap import Tap, within


class EncoderDecoder(nn.Module):
    """Source and target to hidden states of the target, each depending on the source and the target up to its token.

    Parameters are those of `Encoder` and `Decoder`, with the table of token embeddings in `embed`; a table of the
    target's own is in `decoder_embed`.
    """

    config: EncoderDecoderConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the token embeddings, the encoder and the decoder."""
        c = self.config
        tokens_only = dataclasses.replace(
            c,
            positions="none",
            position_offset=0,
            relative_scores=None,
            extra_norms=(),
            dropout=0.0,
        )
        self.embed = TokenEmbeddings(tokens_only, self.compute)
        if not c.share_embeddings:
            self.decoder_embed = TokenEmbeddings(tokens_only, self.compute)
        self.encoder = Encoder(c.encoder, self.compute)
        self.decoder = Decoder(c.decoder, self.compute)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        decoder_tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        decoder_segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        decoder_positions: Int[Array, "B T"] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of the target.

        Args:
            tokens: ids of the source.
            decoder_tokens: ids of the target, shifted right by one against the labels.
            segment_ids: which pair of a packed row a token of the source belongs to; 0 is padding. None: one a row.
            decoder_segment_ids: the same for the target.
            positions: index of each token in its source; None: its index in the row.
            decoder_positions: index of each token in its target; None: its index in the row.
            key: random key for dropout; None: no dropout.
            tap: reads and changes values inside, see `models.observe`.
        """
        encoder_key, decoder_key = split_key(key, 2)
        memory = self.encode(
            tokens, segment_ids=segment_ids, positions=positions, key=encoder_key, tap=tap
        )
        return self.decode(
            decoder_tokens,
            memory=memory,
            memory_segment_ids=segment_ids,
            segment_ids=decoder_segment_ids,
            positions=decoder_positions,
            key=decoder_key,
            tap=tap,
        )[0]

    def encode(
        self,
        tokens: Int[Array, "B S"],
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> Float[Array, "B S D"]:
        """Hidden states of the source; the arguments are those of `Encoder`."""
        x = self.embed(tokens, positions)
        return self.encoder(
            x,
            segment_ids=segment_ids,
            positions=positions,
            key=key,
            tap=within(tap, "encoder."),
        )

    def decode(
        self,
        tokens: Int[Array, "B T"],
        *,
        memory: Float[Array, "B S D"] | None = None,
        memory_segment_ids: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        cache: tuple[Cache, ...] | None = None,
        key: Array | None = None,
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Cache, ...] | None]:
        """Hidden states of the target, and the cache with these tokens added; the arguments are those of `Decoder`."""
        c = self.config
        embed = self.embed if c.share_embeddings else self.decoder_embed
        x = embed(tokens, positions)
        if c.scale_embeddings and c.decoder_scale_embeddings is False:
            # one table is looked up in one way
            x = x * jnp.asarray(c.dim**-0.5, x.dtype)
        return self.decoder(
            x,
            segment_ids=segment_ids,
            positions=positions,
            memory=memory,
            memory_segment_ids=memory_segment_ids,
            cache=cache,
            key=key,
            tap=within(tap, "decoder."),
        )
