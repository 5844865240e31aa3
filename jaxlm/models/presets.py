"""Architectures of well-known models by name: `PRESETS["bert-base"]` is a config like any other.

They have no weights, which `jaxlm.hf.load` reads. Vocabulary sizes are those of the original models;
`dataclasses.replace(PRESETS["gpt2"], vocab_size=None)` takes the tokenizer's instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    RopeScaling,
    llama_style,
    t5_style,
)


def _bert(dim: int, layers: int, heads: int, **more: Any) -> EncoderConfig:
    """BERT of these sizes: MLPs four times as wide as the model, 512 positions."""
    sizes: dict[str, Any] = dict(
        vocab_size=30522, dim=dim, num_layers=layers, num_heads=heads, max_len=512
    )
    return EncoderConfig(**sizes | more)


def _roberta(dim: int, layers: int, heads: int, vocab_size: int = 50265) -> EncoderConfig:
    traits: dict[str, Any] = dict(num_token_types=1, position_offset=2, norm_eps=1e-5)
    return _bert(dim, layers, heads, vocab_size=vocab_size, **traits)


def _modernbert(dim: int, layers: int, heads: int, mlp_dim: int) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=50368,
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        mlp_dim=mlp_dim,
        max_len=8192,
        norm_place="pre",
        norm_eps=1e-5,
        extra_norms=("embedding", "final"),
        first_attn_norm=False,
        positions="rotary",
        rope_theta=160_000.0,
        rope_local_theta=10_000.0,
        activation="geglu",
        biases=(),
        window=65,
        layer_pattern=("global", "local", "local"),
        num_token_types=0,
        head_activation="gelu",
        head_bias=False,
        head_norm=True,
        dropout=0.0,
        attention_dropout=0.0,
    )


def _gpt2(dim: int, layers: int, heads: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=50257,
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        max_len=1024,
        dropout=0.1,
        attention_dropout=0.1,
    )


def _pythia(dim: int, layers: int, heads: int, vocab_size: int = 50304) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=vocab_size,
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        max_len=2048,
        positions="rotary",
        rope_fraction=0.25,
        activation="gelu",
        parallel_block=True,
        tie_embeddings=False,
    )


def _llama(*sizes: int, **more: Any) -> DecoderConfig:
    """The sizes are dim, num_layers, num_heads, num_kv_heads, mlp_dim and vocab_size."""
    names = ("dim", "num_layers", "num_heads", "num_kv_heads", "mlp_dim", "vocab_size")
    return DecoderConfig(**llama_style() | dict(zip(names, sizes, strict=True)) | more)


def _llama3(*sizes: int, **more: Any) -> DecoderConfig:
    """Llama 3.1 and later: 128 thousand positions, scaled up from 8 thousand."""
    return _llama(*sizes, 128256, max_len=131072, rope_theta=500_000.0, **more)


def _qwen25(*sizes: int, **more: Any) -> DecoderConfig:
    traits: dict[str, Any] = dict(max_len=32768, rope_theta=1e6, norm_eps=1e-6, biases=("qkv",))
    return _llama(*sizes, **traits | more)


def _qwen3(*sizes: int, **more: Any) -> DecoderConfig:
    traits: dict[str, Any] = dict(max_len=40960, rope_theta=1e6, norm_eps=1e-6)
    return _llama(*sizes, 151936, **traits, head_dim=128, extra_norms=("qk", "final"), **more)


def _gemma(*sizes: int, **more: Any) -> DecoderConfig:
    traits: dict[str, Any] = dict(
        norm="rms_norm_plus_one",
        norm_place="both",
        norm_eps=1e-6,
        activation="geglu_tanh",
        scale_embeddings=True,
        tie_embeddings=True,
    )
    return _llama(*sizes, **traits | more)


def _gemma2(*sizes: int, **more: Any) -> DecoderConfig:
    traits: dict[str, Any] = dict(
        max_len=8192,
        window=4096,
        layer_pattern=("local", "global"),
        attention_softcap=50.0,
        logit_softcap=30.0,
        attention_scale=256**-0.5,
        head_dim=256,
    )
    return _gemma(*sizes, 256000, **traits, **more)


def _gemma3(*sizes: int, **more: Any) -> DecoderConfig:
    traits: dict[str, Any] = dict(
        max_len=32768,
        window=512,
        layer_pattern=("local",) * 5 + ("global",),
        rope_theta=1e6,
        rope_local_theta=10_000.0,
        attention_scale=256**-0.5,
        head_dim=256,
        extra_norms=("qk", "final"),
    )
    return _gemma(*sizes, 262144, **traits, **more)


def _t5(*sizes: int, **more: Any) -> EncoderDecoderConfig:
    """T5 v1.1 of these dim, num_layers, num_heads and mlp_dim; `t5_style` says how the first T5 differs."""
    traits: dict[str, Any] = dict(zip(("dim", "num_layers", "num_heads", "mlp_dim"), sizes))
    return EncoderDecoderConfig(**t5_style() | dict(vocab_size=32128, head_dim=64) | traits | more)


def _first_t5(*sizes: int) -> EncoderDecoderConfig:
    traits: dict[str, Any] = dict(activation="relu", scale_outputs=True)
    return _t5(*sizes, **traits, tie_embeddings=True)


def _bart(dim: int, layers: int, heads: int) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        vocab_size=50265,
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        max_len=1024,
        positions="learned",
        position_offset=2,
        extra_norms=("embedding",),
        activation="gelu",
        scale_embeddings=False,
        logit_bias=True,
    )


_SCALED_8 = RopeScaling(kind="llama3", factor=8.0, original_max_len=8192)
_SCALED_32 = dataclasses.replace(_SCALED_8, factor=32.0)
_MISTRAL = (4096, 32, 32, 8, 14336, 32000)

PRESETS: dict[str, ModelConfig] = {
    "bert-mini": _bert(256, 4, 4),
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    "roberta-base": _roberta(768, 12, 12),
    "roberta-large": _roberta(1024, 24, 16),
    "xlm-roberta-base": _roberta(768, 12, 12, 250002),
    "distilbert-base": _bert(768, 6, 12, num_token_types=0, head_activation="relu"),
    "electra-small": _bert(256, 12, 4, embedding_dim=128, head_activation="gelu"),
    "electra-base": _bert(768, 12, 12, head_activation="gelu"),
    "modernbert-base": _modernbert(768, 22, 12, 1152),
    "modernbert-large": _modernbert(1024, 28, 16, 2624),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "pythia-70m": _pythia(512, 6, 8),
    "pythia-160m": _pythia(768, 12, 12),
    "pythia-410m": _pythia(1024, 24, 16),
    "pythia-1b": _pythia(2048, 16, 8),
    "pythia-1.4b": _pythia(2048, 24, 16),
    "pythia-2.8b": _pythia(2560, 32, 32),
    "pythia-6.9b": _pythia(4096, 32, 32, 50432),
    "llama-2-7b": _llama(4096, 32, 32, 32, 11008, 32000, max_len=4096),
    "llama-2-13b": _llama(5120, 40, 40, 40, 13824, 32000, max_len=4096),
    "llama-3-8b": _llama(4096, 32, 32, 8, 14336, 128256, max_len=8192, rope_theta=500_000.0),
    "llama-3.1-8b": _llama3(4096, 32, 32, 8, 14336, rope_scaling=_SCALED_8),
    "llama-3.2-1b": _llama3(
        2048, 16, 32, 8, 8192, rope_scaling=_SCALED_32, tie_embeddings=True, head_dim=64
    ),
    "llama-3.2-3b": _llama3(
        3072, 28, 24, 8, 8192, rope_scaling=_SCALED_32, tie_embeddings=True, head_dim=128
    ),
    "mistral-7b": _llama(*_MISTRAL, max_len=32768, window=4096),
    "mixtral-8x7b": _llama(*_MISTRAL, max_len=32768, rope_theta=1e6, num_experts=8),
    "qwen2.5-0.5b": _qwen25(896, 24, 14, 2, 4864, 151936, tie_embeddings=True),
    "qwen2.5-1.5b": _qwen25(1536, 28, 12, 2, 8960, 151936, tie_embeddings=True),
    "qwen2.5-7b": _qwen25(3584, 28, 28, 4, 18944, 152064, max_len=131072),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 8, 3072, tie_embeddings=True),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 8, 6144, tie_embeddings=True),
    "qwen3-4b": _qwen3(2560, 36, 32, 8, 9728, tie_embeddings=True),
    "qwen3-8b": _qwen3(4096, 36, 32, 8, 12288),
    "gemma-2-2b": _gemma2(2304, 26, 8, 4, 9216),
    "gemma-2-9b": _gemma2(3584, 42, 16, 8, 14336),
    "gemma-3-270m": _gemma3(640, 18, 4, 1, 2048),
    "gemma-3-1b": _gemma3(1152, 26, 4, 1, 6912),
    "t5-small": _first_t5(512, 6, 8, 2048),
    "t5-base": _first_t5(768, 12, 12, 3072),
    "t5-large": _first_t5(1024, 24, 16, 4096),
    "t5-v1.1-small": _t5(512, 8, 6, 1024),
    "t5-v1.1-base": _t5(768, 12, 12, 2048),
    "mt5-small": _t5(512, 8, 6, 1024, vocab_size=250112),
    "bart-base": _bart(768, 6, 12),
    "bart-large": _bart(1024, 12, 16),
}
