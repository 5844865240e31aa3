"""Data sheets of the chips that can be planned for: the only place with such figures."""

from __future__ import annotations

import dataclasses
import math
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
    # sides of the largest slice, GPUs of the largest node, or devices that JAX can simulate
    largest: tuple[int, ...]
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


# by which the environment tells JAX how much of a GPU it may reserve
_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"

_CLOUD = "https://docs.cloud.google.com/tpu/docs"
_NVIDIA = "https://www.nvidia.com/en-us/data-center"

_70B = "MaxText's Llama 2 70B (getting_started/Run_Llama2.md)"
_GPU_RUNS = "as Llama 1B on one H200 (docs/performance.md)"

# By the name in --topology. Links of TPUs: half of the bandwidth in both directions. GPUs: NVLink's 900 GB/s in both
# directions, and between nodes a 400 Gbit/s adapter for each GPU, as in a DGX or an a3-mega machine. What is reached:
# docs/launch.md compares it with runs.
CHIPS = {
    "v5p": Chip(
        kind="TPU v5",
        memory=95 * 2**30,
        bandwidth=2765e9,
        link=600e9,
        network=None,
        largest=(16, 20, 28),
        source=f"{_CLOUD}/v5p",
        efficiency=0.79,
        reached=f"as {_70B} on v5p",
    ),
    "v5e": Chip(
        kind="TPU v5 lite",
        memory=15.75 * 2**30,
        bandwidth=819e9,
        link=200e9,
        network=None,
        largest=(16, 16),
        source=f"{_CLOUD}/v5e",
        efficiency=0.7,
        reached=f"as {_70B} on v5e",
    ),
    "v6e": Chip(
        kind="TPU v6 lite",
        memory=31.25 * 2**30,
        bandwidth=1600e9,
        link=400e9,
        network=None,
        largest=(16, 16),
        source=f"{_CLOUD}/v6e",
        efficiency=0.7,
        reached="as on v5e: no run on v6e is known here",
    ),
    "h100": Chip(
        kind="NVIDIA H100 80GB HBM3",
        memory=84942979072,
        bandwidth=3350e9,
        link=450e9,
        network=50e9,
        largest=(8,),
        source=f"{_NVIDIA}/h100",
        efficiency=0.5,
        reached=_GPU_RUNS,
    ),
    "h200": Chip(
        kind="NVIDIA H200",
        memory=150754820096,
        bandwidth=4800e9,
        link=450e9,
        network=50e9,
        largest=(8,),
        source=f"{_NVIDIA}/h200",
        efficiency=0.5,
        reached=_GPU_RUNS,
    ),
    # of no machine in particular: its memory is not a limit, and its times are unknown
    "cpu": Chip(
        kind="cpu",
        memory=float("inf"),
        bandwidth=None,
        link=None,
        network=None,
        largest=(2048,),
        source="none",
    ),
}


def usable_memory(chip: Chip) -> float:
    """Bytes that a program may use: of a GPU the fraction that JAX reserves for itself.

    Raises:
        ValueError: the environment has no such fraction.
    """
    if not chip.kind.startswith("NVIDIA"):
        return chip.memory
    given = os.environ.get(_FRACTION, "0.75")
    try:
        fraction = float(given)
    except ValueError:
        fraction = math.nan
    if not 0 < fraction <= 1:
        raise ValueError(f"{_FRACTION}={given}: must be more than 0 and at most 1, as in .9")
    return chip.memory * fraction
