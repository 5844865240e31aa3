"""Devices of machines that are not here, to compile for."""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from jaxlm.plan.chips import CHIPS, Chip

_FORMS = "v5p:4x4x4, v5e:4x8, v6e:4x8, h100:8, h200:2x8 (nodes x GPUs) or cpu:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod, nodes of GPUs, or simulated CPU devices."""

    # as given, such as v5p:4x4x4
    name: str
    generation: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """The data sheet of its chips."""
        return CHIPS[self.generation]

    @property
    def platform(self) -> str:
        """`cpu`, `gpu` or `tpu`."""
        if self.generation == "cpu":
            return "cpu"
        return "tpu" if self.generation.startswith("v") else "gpu"

    @property
    def size(self) -> int:
        """Number of devices."""
        return math.prod(self.shape)

    @property
    def per_node(self) -> int:
        """Devices that reach each other by links instead of the network."""
        return self.shape[-1] if self.platform == "gpu" else self.size

    def devices(self) -> list[Any]:
        """Its devices, for which programs can be compiled and which cannot run any.

        Raises:
            ValueError: their compiler is not installed, or knows no such topology.
        """
        if self.platform == "cpu":
            return _cpus(self)
        return _tpus(self) if self.platform == "tpu" else _gpus(self)


def parse(name: str) -> Topology:
    """The topology of a name such as v5p:4x4x4.

    Raises:
        ValueError: there is none of that form.
    """
    generation, _, shape = name.partition(":")
    if generation not in CHIPS:
        raise ValueError(f"--topology {name}: unknown; use one such as {_FORMS}")
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})*", shape):
        raise ValueError(f"--topology {name}: needs a shape; use one such as {_FORMS}")
    sizes = tuple(map(int, shape.split("x")))
    expected = {"v5p": (3,), "v5e": (2,), "v6e": (2,), "cpu": (1,)}.get(generation, (1, 2))
    if len(sizes) not in expected:
        numbers = " or ".join(map(str, expected))
        raise ValueError(
            f"--topology {name}: {generation} has {numbers} dimension(s); use one such as {_FORMS}"
        )
    place = Topology(name, generation, sizes)
    _check_size(place)
    return place


def _check_size(place: Topology) -> None:
    """Raises ValueError for more devices than there are in one: a compiler takes them, or ends the process."""
    largest = place.chip.largest
    sides = place.shape[-1:] if place.platform == "gpu" else place.shape
    if all(side <= most for side, most in zip(sorted(sides), sorted(largest))):
        return
    most = "x".join(map(str, largest))
    reason = {
        "gpu": f"a node has at most {most} GPUs: say nodes x GPUs, as in {place.generation}:2x{most}",
        "tpu": f"the largest slice is {place.generation}:{most}",
        "cpu": f"JAX simulates at most {most} devices",
    }
    raise ValueError(f"--topology {place.name}: {reason[place.platform]}")


def simulate_cpus(topology: Topology) -> None:
    """Has JAX simulate as many CPU devices as a CPU topology has, when it starts its backend."""
    if topology.platform == "cpu" and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        count = f"--xla_force_host_platform_device_count={topology.size}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()


_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def _cpus(topology: Topology) -> list[Any]:
    devices = jax.devices("cpu")
    if len(devices) < topology.size:
        raise ValueError(
            f"--topology {topology.name}: JAX simulates {len(devices)} CPU device(s) here: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={topology.size}"
        )
    return devices[: topology.size]


def _tpus(topology: Topology) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology {topology.name}: compiling for TPUs needs the package libtpu: pip install libtpu"
        )
    # nothing here touches a chip: no metadata of a TPU VM (of which libtpu complains if there are none), and no lock
    # against other users of libtpu
    for name, value in _NO_TPU.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    except Exception as e:  # JAX gives whatever type the plugin raises
        raise ValueError(f"--topology {topology.name}: libtpu refuses it: {first_line(e)}") from e
    return list(found.devices)


def _gpus(topology: Topology) -> list[Any]:
    needed = {
        "jax_cuda13_plugin": "jax-cuda13-plugin",
        "jax_plugins.xla_cuda13": "jax-cuda13-pjrt",
    }
    missing = [package for module, package in needed.items() if not _is_installed(module)]
    if not _is_installed("nvidia.cu13") and not _is_installed("nvidia.cuda_nvcc"):
        missing.append("nvidia-cuda-nvcc")
    if missing:
        names = ", ".join(missing)
        raise ValueError(
            f"--topology {topology.name}: compiling for GPUs needs {names}: pip install "
            f"{' '.join(missing)} (versions as jax {jax.__version__})"
        )
    about = importlib.resources.files("jaxlm.plan").joinpath(f"{topology.generation}.txtpb")
    nodes, count = (1, *topology.shape)[-2:]
    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=about.read_text(encoding="utf-8"),
            topology=f"1x{nodes}x{count}",
        )
    except Exception as e:
        raise ValueError(
            f"--topology {topology.name}: the CUDA plugin refuses it: {first_line(e)}"
        ) from e
    return list(found.devices)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def first_line(e: Exception) -> str:
    """What an exception says, in one line."""
    return (str(e).strip() or type(e).__name__).splitlines()[0][:300]
