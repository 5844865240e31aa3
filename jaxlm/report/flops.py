"""Peak speeds of devices, and model FLOPs utilization (MFU)."""

from __future__ import annotations

# Dense bfloat16 FLOP/s of one JAX device, by `device_kind`, from the vendors' data sheets. Only exact names match: a
# slice of a GPU or a laptop chip of similar name is slower. JAX calls v5p "TPU v5", and has two devices per TPU7x chip.
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
    # no bfloat16 in hardware: float16 figures
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-PCIE-16GB": 112e12,
    "Tesla V100-PCIE-32GB": 112e12,
}


def mfu(
    tokens_per_second: float | None,
    flops_per_token: float,
    num_devices: int,
    device_kind: str,
) -> float | None:
    """Model FLOPs utilization: the model's FLOP/s as a fraction of the devices' peak; None if unknown.

    Args:
        tokens_per_second: over all devices; None: unknown as yet.
        flops_per_token: from `models.flops.flops_per_token`.
        num_devices: JAX devices.
        device_kind: `jax.Device.device_kind`.
    """
    peak = PEAK_FLOPS.get(device_kind)
    if tokens_per_second is None or peak is None:
        return None
    return tokens_per_second * flops_per_token / (num_devices * peak)
