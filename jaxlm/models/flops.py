"""FLOPs of a model on paper.

Letters: T positions.
"""

from __future__ import annotations

import itertools

from jaxlm.config import (
    DecoderConfig,
    DenseVAEConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
    VAEConfig,
)


def flops_per_token(
    config: TransformerConfig | VAEConfig, seq_len: int, *, output_fraction: float = 1.0
) -> float:
    """FLOPs of forward and backward pass for one token, after PaLM (Chowdhery et al. 2022, 2204.02311, appendix B).

    Two for each weight of a matrix product and each score and mix of attention; the backward pass takes twice the
    forward's. Causality is not deducted, a window is. What is computed again to save memory does not count.

    Args:
        config: the backbone, with vocab_size filled in.
        seq_len: T.
        output_fraction: fraction of the T positions at which logits of the vocabulary are computed: 1 for causal
            language models, about the masking rate for masked ones, 0 for classifiers. For an encoder-decoder: target
            positions for each source position, which T counts; at 0 the decoder does not run.
    """
    c = config
    if isinstance(c, VAEConfig):
        # both sides read the whole text
        return flops_per_token(c.encoder, seq_len, output_fraction=0) + flops_per_token(
            c.decoder, seq_len, output_fraction=output_fraction
        )
    assert c.vocab_size is not None, "vocab_size is filled in before a model is built"
    if isinstance(c, EncoderDecoderConfig):
        total = _stack(c.encoder, seq_len)
        if output_fraction:
            total += output_fraction * _stack(c.decoder, round(output_fraction * seq_len))
            total += c.decoder.num_layers * _cross_attention(c.decoder, seq_len, output_fraction)
    else:
        total = _stack(c, seq_len)
    return 3 * 2 * (total + output_fraction * c.dim * c.vocab_size)


def flops_per_row(config: DenseVAEConfig) -> float:
    """FLOPs of forward and backward pass for one row of numbers."""
    sides = (config.encoder_widths, config.decoder_widths)
    return 3 * 2 * sum(a * b for widths in sides for a, b in itertools.pairwise(widths))


def _stack(c: TransformerConfig, seq_len: int) -> float:
    """Multiplications of one token in the blocks of an encoder or decoder."""
    query_and_out = 2 * c.dim * c.num_heads * c.head_width
    key_and_value = 2 * c.dim * c.kv_heads * c.head_width
    of_width = (3 if c.is_gated else 2) * c.dim
    mlp = c.num_layers * of_width * c.mlp_width
    if c.num_experts is not None:
        dense = len(c.dense_layers)
        each = c.experts_per_token * of_width * c.mlp_width + c.dim * c.num_experts
        if c.shared_expert_dim is not None:
            each += of_width * c.shared_expert_dim + c.dim
        mlp = (c.num_layers - dense) * each + dense * of_width * (c.dense_mlp_dim or c.mlp_width)
    # scores and mix: H each for every head and key
    attention = sum(2 * c.num_heads * c.head_width * n for n in _keys_per_layer(c, seq_len))
    if c.distance_scores == "disentangled":
        # with the vectors of all distances, twice as many as keys
        terms = len(c.relative_terms)
        attention += c.num_layers * terms * c.num_heads * c.head_width * 2 * seq_len
    first = 0
    if isinstance(c, EncoderConfig) and c.convolution is not None:
        first = c.convolution * c.dim**2
    return c.num_layers * (query_and_out + key_and_value) + mlp + attention + first


def _cross_attention(c: TransformerConfig, seq_len: int, target_fraction: float) -> float:
    """Multiplications of one block's cross-attention for each token of the source."""
    query_and_out = 2 * c.dim * c.num_heads * c.head_width
    key_and_value = 2 * c.dim * c.kv_heads * c.head_width
    return (
        target_fraction * (query_and_out + 2 * c.num_heads * c.head_width * seq_len) + key_and_value
    )


def _keys_per_layer(config: TransformerConfig, seq_len: int) -> list[int]:
    """Keys that a query sees at most, in each layer."""
    reach = config.window or seq_len
    if not isinstance(config, DecoderConfig):
        reach = 2 * reach - 1
    return [min(reach, seq_len) if local else seq_len for local in config.local_layers]
