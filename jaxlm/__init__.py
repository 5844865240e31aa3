"""jaxlm: pretrain and fine-tune encoders, decoders and encoder-decoders in JAX from one functional core.

The building blocks are here: `CausalLM(config).apply(params, tokens)` and the pure functions of `jaxlm.ops`. Runs are
made by `jaxlm.training`, or by the commands `jaxlm train` and `jaxlm finetune`.
"""

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    FinetuneConfig,
    TrainConfig,
    llama_style,
    t5_style,
)
from jaxlm.models.decoder import Decoder, empty_cache
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.heads import CausalLM, Classifier, MaskedLM, Seq2SeqLM, init_params
from jaxlm.nn.attention import Attention
from jaxlm.nn.layers import MLP, Norm
from jaxlm.nn.transformer import Block, Stack

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "CausalLM",
    "Classifier",
    "ComputeConfig",
    "Decoder",
    "DecoderConfig",
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FinetuneConfig",
    "MaskedLM",
    "Norm",
    "Seq2SeqLM",
    "Stack",
    "TrainConfig",
    "empty_cache",
    "init_params",
    "llama_style",
    "t5_style",
]
