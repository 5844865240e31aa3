"""Data sheets of the chips that can be planned for: the only place with such figures."""

from __future__ import annotations

import dataclasses
import os

from jaxlm.report.flops import PEAK_FLOPS


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip by its data sheet; speeds are those of one JAX device in one direction."""

    # `jax.Device.device_kind`, by which `report.flops` knows its peak in bfloat16
    kind: str
    # bytes of memory that a program may use
    memory: float
    # bytes per second from and to that memory; None: unknown
    bandwidth: float | None
    # bytes per second of all links to other chips of its slice or node together
    link: float | None
    # bytes per second to chips of other nodes; None: a slice has no nodes
    network: float | None
    # where these figures are from
    source: str
    # tokens per second that runs are known to reach, as a fraction of those that the speeds above would allow
    efficiency: float = 1.0
    # which runs
    reached: str = "none is known"

    @property
    def flops(self) -> float | None:
        """Dense bfloat16 FLOP/s; None: unknown."""
        return PEAK_FLOPS.get(self.kind)


_CLOUD = "https://docs.cloud.google.com/tpu/docs"
_NVIDIA = "https://www.nvidia.com/en-us/data-center"

# By the name in --topology. Links of TPUs: half of the bandwidth in both directions. GPUs: NVLink's 900 GB/s in both
# directions, and between nodes a 400 Gbit/s adapter for each GPU, as in a DGX or an a3-mega machine.
CHIPS = {
    "v5p": Chip("TPU v5", 95 * 2**30, 2765e9, 600e9, None, f"{_CLOUD}/v5p"),
    "v5e": Chip("TPU v5 lite", 15.75 * 2**30, 819e9, 200e9, None, f"{_CLOUD}/v5e"),
    "v6e": Chip("TPU v6 lite", 31.25 * 2**30, 1600e9, 400e9, None, f"{_CLOUD}/v6e"),
    "h100": Chip("NVIDIA H100 80GB HBM3", 84942979072, 3350e9, 450e9, 50e9, f"{_NVIDIA}/h100"),
    "h200": Chip("NVIDIA H200", 150754820096, 4800e9, 450e9, 50e9, f"{_NVIDIA}/h200"),
    # of no machine in particular: its memory is not a limit, and its times are unknown
    "cpu": Chip("cpu", float("inf"), None, None, None, "none"),
}


def usable_memory(chip: Chip) -> float:
    """Bytes that a program may use: of a GPU the fraction that JAX reserves for itself."""
    if not chip.kind.startswith("NVIDIA"):
        return chip.memory
    return chip.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
