"""Small configs of every kind of architecture with random parameters, for the suites over all models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
    llama_style,
    t5_style,
)
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.heads import CausalLM, MaskedLM, Seq2SeqLM, init_params

SIZES = dict(vocab_size=40, dim=32, num_layers=2, num_heads=4, max_len=16)
LLAMA = dict(**llama_style(), **SIZES, num_kv_heads=2)

STYLES: dict[str, TransformerConfig] = {
    "gpt2": DecoderConfig(**SIZES),
    "llama": DecoderConfig(**LLAMA),
    # five layers: a scan over two periods, and a layer after it or before it
    "alternating": DecoderConfig(
        **LLAMA | dict(num_layers=5),
        window=3,
        layer_pattern=("local", "global"),
        rope_local_theta=100.0,
    ),
    "gemma": DecoderConfig(
        **LLAMA | dict(norm="rms_norm_plus_one", tie_embeddings=True, activation="geglu_tanh"),
        norm_place="both",
        extra_norms=("qk", "final"),
        attention_softcap=5.0,
        logit_softcap=3.0,
        attention_scale=0.5,
        scale_embeddings=True,
        head_dim=16,
    ),
    "neox": DecoderConfig(**SIZES, positions="rotary", rope_fraction=0.5, parallel_block=True),
    "gptj": DecoderConfig(
        **SIZES,
        positions="rotary",
        rope_fraction=0.5,
        rope_pairs="neighbours",
        parallel_block=True,
        shared_norm=True,
        extra_norms=("qk_by_head", "final"),
        biases=("norm", "mlp"),
        tie_embeddings=False,
        logit_bias=True,
    ),
    # the layers are of three kinds
    "olmo": DecoderConfig(
        **LLAMA | dict(num_layers=5),
        norm_place="out",
        extra_norms=("qk_whole", "final"),
        embedding_scale=3.0,
        residual_scale=0.5,
        logit_scale=0.7,
        attention_sinks=True,
        window=3,
        layer_pattern=("local", "global"),
        rope_pattern=("rotary", "none", "rotary"),
    ),
    "bloom": DecoderConfig(
        **SIZES | dict(num_heads=8, num_layers=3),
        positions="alibi",
        extra_norms=("embedding", "final"),
        window=3,
        layer_pattern=("local", "global"),
    ),
    "bert": EncoderConfig(**SIZES),
    "modernbert": EncoderConfig(
        **SIZES | dict(num_layers=5),
        norm_place="pre",
        extra_norms=("embedding", "final"),
        positions="rotary",
        activation="geglu",
        biases=(),
        window=3,
        layer_pattern=("global", "local"),
        num_token_types=0,
        tie_embeddings=False,
        first_attn_norm=False,
        head_norm=True,
        head_bias=False,
    ),
    "electra": EncoderConfig(**SIZES, embedding_dim=8, head_activation="gelu"),
    "mpnet": EncoderConfig(
        **SIZES,
        position_offset=2,
        relative_scores="shared",
        relative_buckets=8,
        relative_max_distance=12,
    ),
    "deberta": EncoderConfig(
        **SIZES,
        extra_norms=("embedding", "relative"),
        positions="relative",
        relative_scores="disentangled",
        relative_buckets=8,
        relative_max_distance=12,
        relative_projections="own",
        num_token_types=0,
    ),
    "albert": EncoderConfig(**SIZES | dict(num_layers=4), layer_groups=2, embedding_dim=8),
    "sinusoidal": EncoderConfig(
        **SIZES,
        norm_place="pre",
        extra_norms=("embedding", "final"),
        positions="sinusoidal",
        activation="reglu",
    ),
}
ENCODER_DECODERS: dict[str, EncoderDecoderConfig] = {
    "transformer": EncoderDecoderConfig(**SIZES, num_decoder_layers=3),
    "t5": EncoderDecoderConfig(**SIZES, **t5_style(), relative_buckets=8, relative_max_distance=12),
    "umt5": EncoderDecoderConfig(
        **SIZES,
        **t5_style() | dict(scale_embeddings=True, extra_norms=("embedding", "final")),
        relative_scores="by_layer",
        relative_buckets=8,
        relative_max_distance=12,
        decoder_embedding_norm="token",
        decoder_scale_embeddings=False,
    ),
    "bart": EncoderDecoderConfig(
        **SIZES,
        positions="learned",
        position_offset=2,
        extra_norms=("embedding",),
        activation="gelu",
        scale_embeddings=False,
        logit_bias=True,
    ),
}
DECODERS = [name for name, config in STYLES.items() if isinstance(config, DecoderConfig)]
ENCODERS = [name for name in STYLES if name not in DECODERS]

F32 = ComputeConfig(dtype="float32", attention="xla")


def language_model(config: TransformerConfig, compute: ComputeConfig = F32):
    """The model with its language-modeling head."""
    kinds = {
        DecoderConfig: CausalLM,
        EncoderConfig: MaskedLM,
        EncoderDecoderConfig: Seq2SeqLM,
    }
    return kinds[type(config)](config, compute)


def random_params(model, seed: int = 0):
    """Random parameters, none of which is zero or one, so that all of them affect the result."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return filled(shapes, seed, scale=0.0 if model.config.norm == "rms_norm_plus_one" else 1.0)


def filled(shapes, seed: int = 0, scale: float = 1.0):
    """Random parameters of these shapes around 0; those of norms around `scale`."""
    rng = np.random.default_rng(seed)

    def fill(path, x):
        y = rng.normal(0.0, 0.15, x.shape)
        return jnp.asarray(y + scale if path[-1].key == "scale" else y, jnp.float32)

    return jax.tree.map_with_path(fill, shapes)


@functools.cache
def params(name: str):
    """Parameters of the language model of a style."""
    return random_params(language_model((STYLES | ENCODER_DECODERS)[name]))


def hidden(config: TransformerConfig, params, tokens, compute: ComputeConfig = F32, **inputs):
    """The backbone's last hidden states."""
    if isinstance(config, EncoderConfig):
        return Encoder(config, compute).apply({"params": params["backbone"]}, tokens, **inputs)
    return Decoder(config, compute).apply({"params": params["backbone"]}, tokens, **inputs)[0]


jit_hidden = jax.jit(hidden, static_argnums=(0, 3), static_argnames=("config", "compute"))
