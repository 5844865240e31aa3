"""A backbone of any kind, by its config."""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxlm.config import ComputeConfig, DecoderConfig, EncoderDecoderConfig, ModelConfig
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder


class Headless(nn.Module):
    """A backbone without a head; its parameters are {"backbone": ...}, as in models with heads."""

    config: ModelConfig
    compute: ComputeConfig = ComputeConfig()

    def setup(self):
        """Declares the backbone."""
        self.backbone = make_backbone(self.config, self.compute)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B T D"]:
        """The last hidden states, of an encoder-decoder those of the target (`decoder_tokens`)."""
        return last_hidden(self.backbone(tokens, **inputs))


def make_backbone(config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """The encoder, decoder or encoder-decoder of a config."""
    if isinstance(config, DecoderConfig):
        return Decoder(config, compute)
    if isinstance(config, EncoderDecoderConfig):
        return EncoderDecoder(config, compute)
    return Encoder(config, compute)


def last_hidden(output: Any) -> Float[Array, "B T D"]:
    """The hidden states in a backbone's output; a decoder returns its cache as well."""
    return output[0] if isinstance(output, tuple) else output
