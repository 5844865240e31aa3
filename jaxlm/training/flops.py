"""FLOPs of a model on paper, peak speeds of devices, and the share of the one that the other reaches (MFU).

Letters: T positions.
"""

from __future__ import annotations

from jaxlm.config import DecoderConfig, EncoderDecoderConfig, TransformerConfig
from jaxlm.tasks import Task

# Dense bfloat16 FLOP/s of one JAX device, by `device_kind`, from the makers' data sheets. Exact names only: a slice of
# a GPU or a laptop's chip of the same name is slower. JAX calls v5p "TPU v5", and a TPU7x chip two devices.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    # no bfloat16 in hardware: their float16
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-PCIE-16GB": 112e12,
    "Tesla V100-PCIE-32GB": 112e12,
}


def flops_per_token(config: TransformerConfig, seq_len: int, *, output_share: float = 1.0) -> float:
    """FLOPs of forward and backward pass for one token, after PaLM (Chowdhery et al. 2022, 2204.02311, appendix B).

    Two for each weight of a matrix product and each score and mix of attention; the backward pass takes twice the
    forward's. Causality is not deducted, a window is. What is computed again to save memory does not count.

    Args:
        config: the backbone, with vocab_size filled in.
        seq_len: T.
        output_share: for how many of the T places logits of the vocabulary are computed, as a share: 1 for causal
            language models, about the masking rate for masked ones, 0 for classifiers. For an encoder-decoder: target
            places for each place of the source, which T counts; at 0 the decoder does not run.
    """
    c = config
    assert c.vocab_size is not None, "vocab_size is filled in before a model is built"
    if isinstance(c, EncoderDecoderConfig):
        total = _stack(c.encoder, seq_len)
        if output_share:
            total += output_share * _stack(c.decoder, round(output_share * seq_len))
            total += c.decoder.num_layers * _cross_attention(c, seq_len, output_share)
    else:
        total = _stack(c, seq_len)
    return 3 * 2 * (total + output_share * c.dim * c.vocab_size)


def of_task(task: Task, seq_len: int) -> float:
    """`flops_per_token` of a task's model in rows of this length, and of the generator beside it where there is one."""
    total = flops_per_token(task.model.config, seq_len, output_share=task.output_share)
    if task.generator is not None:
        total += flops_per_token(task.generator, seq_len, output_share=0.0)
    return total


def _stack(c: TransformerConfig, seq_len: int) -> float:
    """Multiplications of one token in the blocks of an encoder or decoder."""
    query_and_out = 2 * c.dim * c.num_heads * c.head_width
    key_and_value = 2 * c.dim * c.kv_heads * c.head_width
    mlp = (3 if c.is_gated else 2) * c.dim * c.mlp_width
    if c.num_experts is not None:
        mlp = c.experts_per_token * mlp + c.dim * c.num_experts
    # scores and mix: H each for every head and key
    attention = sum(2 * c.num_heads * c.head_width * n for n in _keys_per_layer(c, seq_len))
    return c.num_layers * (query_and_out + key_and_value + mlp) + attention


def _cross_attention(c: TransformerConfig, seq_len: int, target_share: float) -> float:
    """Multiplications of one block's cross-attention for each token of the source."""
    query_and_out = 2 * c.dim * c.num_heads * c.head_width
    key_and_value = 2 * c.dim * c.kv_heads * c.head_width
    return target_share * (query_and_out + 2 * c.num_heads * c.head_width * seq_len) + key_and_value


def _keys_per_layer(config: TransformerConfig, seq_len: int) -> list[int]:
    """Keys that a query sees at most, in each layer."""
    reach = config.window or seq_len
    if not isinstance(config, DecoderConfig):
        reach = 2 * reach - 1
    return [min(reach, seq_len) if local else seq_len for local in config.local_layers]


def mfu(
    tokens_per_second: float | None,
    flops_per_token: float,
    num_devices: int,
    device_kind: str,
) -> float | None:
    """Model FLOPs utilisation: the share of the devices' peak that goes into the model; None where it is not known.

    Args:
        tokens_per_second: over all devices; None: not known yet.
        flops_per_token: from the function of that name.
        num_devices: JAX devices.
        device_kind: `jax.Device.device_kind`.
    """
    peak = PEAK_FLOPS.get(device_kind)
    if tokens_per_second is None or peak is None:
        return None
    return tokens_per_second * flops_per_token / (num_devices * peak)
