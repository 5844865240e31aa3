"""Memory and time of a training step on paper: a roofline, to choose what is worth compiling.

Letters: L layers, D model width, H head width, N query heads, K key/value heads, F MLP width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxlm.config import EncoderDecoderConfig, VAEConfig
from jaxlm.plan import collectives
from jaxlm.plan.subject import Subject, size, size_per_device
from jaxlm.plan.topology import Topology

# Collectives over these axes move parameters and gradients, which are ready early or needed late: they run beside the
# matrix products. Those over all other axes move activations that the next product waits for.
OVERLAPPED = ("data", "fsdp")
# axes whose traffic is known on paper
KNOWN_AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parameters: float
    optimizer: float
    batch: float
    # of trained parameters, in float32
    gradients: float
    # what the backward pass keeps, and workspace
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a step at full speed."""

    # matrix products, and memory traffic where nothing else hides it
    compute: float
    # collectives that run beside them
    overlapped: float
    # collectives that are waited for
    exposed: float

    @property
    def total(self) -> float:
        """Of a whole step."""
        return max(self.compute, self.overlapped) + self.exposed


def memory(subject: Subject, mesh: Mesh) -> Memory:
    """The memory of a step: exact but for the activations, of which only what is kept for the backward pass counts."""
    state = subject.state(mesh)
    parameters = size_per_device(state.params)
    fraction = size(subject.trained(subject.phase)) / max(size(subject.params), 1)
    return Memory(
        parameters=parameters,
        optimizer=size_per_device(state.opt_state),
        batch=size_per_device(subject.batch(mesh)),
        gradients=parameters * fraction,
        activations=activations(subject, dict(mesh.shape)),
    )


def activations(subject: Subject, mesh: Mapping[str, int]) -> float:
    """Bytes that the backward pass keeps of the blocks, in the compute dtype."""
    c = subject.config
    tensor = mesh.get("tensor", 1)
    # all other axes split rows or positions
    tokens = subject.tokens_per_step / (math.prod(mesh.values()) / tensor) / c.accumulate
    kept = sum(_kept(stack, c.compute.remat, tensor) for stack in stacks(c.model))
    return tokens * kept * bytes_per_number(subject)


def _kept(c: Any, remat: str, shards: int) -> float:
    """Numbers that all blocks of a stack keep for each token."""
    products = (2 * c.num_heads + 2 * c.kv_heads) * c.head_width
    attention = c.num_heads * c.head_width
    mlp = (2 if c.is_gated else 1) * c.mlp_width
    if c.num_experts is not None:
        mlp *= c.experts_per_token
    of_block = {
        "full": c.dim,
        "attention": c.dim + attention / shards,
        "offload": c.dim + attention / shards,
        # inputs of norms, and results of products
        "dots": 2 * c.dim + (products + mlp) / shards,
        "minimal": 2 * c.dim + (products + attention + mlp) / shards,
        # besides, results of norms, activation functions and their gates
        "none": 4 * c.dim + (1.5 * products + 3 * mlp) / shards,
    }
    return c.num_layers * of_block[remat]


def time(subject: Subject, mesh: Mesh, topology: Topology, parameters: float) -> Time | None:
    """The roofline of a step; None: the chip's speeds are not known.

    Args:
        subject: the run.
        mesh: its mesh.
        topology: its devices.
        parameters: bytes of parameters on each device.
    """
    chip = topology.chip
    if chip.flops is None or chip.bandwidth is None:
        return None
    compute = subject.flops_per_step * recomputed(subject) / (topology.size * chip.flops)
    compute += update_bytes(parameters) / chip.bandwidth
    overlapped = exposed = 0.0
    shape = dict(mesh.shape)
    for axis, sent in traffic(subject, shape, parameters).items():
        seconds = sent / speed(topology, shape[axis], _crosses(shape, axis, topology.per_node))
        if axis in OVERLAPPED:
            overlapped += seconds
        else:
            exposed += seconds
    return Time(compute, overlapped, exposed)


def recomputed(subject: Subject) -> float:
    """FLOPs of a step with what is computed again, as a multiple of those on paper."""
    return 4 / 3 if subject.config.compute.remat in ("attention", "full") else 1.0


def update_bytes(parameters: float) -> float:
    """Memory traffic of the update of parameters of so many bytes: AdamW reads four arrays and writes three."""
    return 7 * parameters


def traffic(subject: Subject, mesh: Mapping[str, int], parameters: float) -> dict[str, float]:
    """Bytes that each device sends in a step along the axes of `KNOWN_AXES` that have several devices."""
    c = subject.config
    width = bytes_per_number(subject)
    # parameters are float32; they are sent in the dtype that they are multiplied in, and so are their gradients
    parameters *= width / 4
    own = parameters * mesh.get("fsdp", 1)
    out = {}
    if mesh.get("data", 1) > 1:
        out["data"] = collectives.sent("all-reduce", parameters, mesh["data"])
    if mesh.get("fsdp", 1) > 1:
        # forward and backward
        gathered = 2 * collectives.sent("all-gather", own, mesh["fsdp"])
        scattered = collectives.sent("reduce-scatter", own, mesh["fsdp"])
        out["fsdp"] = c.accumulate * (gathered + scattered)
    if mesh.get("tensor", 1) > 1:
        rows = subject.tokens_per_step / (math.prod(mesh.values()) / mesh["tensor"])
        # after attention and MLP, forward and backward (Shoeybi et al. 2019, 1909.08053, section 3)
        each = 4 * sum(stack.num_layers * stack.dim for stack in stacks(c.model))
        out["tensor"] = collectives.sent("all-reduce", rows * each * width, mesh["tensor"])
    return out


def speed(topology: Topology, group: int, crosses: bool) -> float:
    """Bytes per second that a device sends to others of a group.

    In a TPU's torus a group that spans some of its dimensions uses their links only: by the ratio of the logarithms of
    the sizes, which is exact for a torus of equal sides.
    """
    chip = topology.chip
    assert chip.link is not None
    if crosses:
        assert chip.network is not None
        return chip.network
    if topology.platform == "tpu" and topology.size > 1:
        return chip.link * min(math.log(max(group, 2)) / math.log(topology.size), 1.0)
    return chip.link


def bytes_per_number(subject: Subject) -> int:
    """Of activations: bfloat16 unless the config says otherwise."""
    dtype = subject.config.compute.dtype
    return jnp.dtype(jnp.bfloat16 if dtype == "auto" else dtype).itemsize


def stacks(model: Any) -> Sequence[Any]:
    """The stacks of blocks of a model; none if it is of another kind."""
    if isinstance(model, (EncoderDecoderConfig, VAEConfig)):
        sides = (model.encoder, model.decoder)
        return [part for side in sides for part in stacks(side)]
    return [model] if hasattr(model, "num_layers") else []


def _crosses(mesh: Mapping[str, int], axis: str, per_node: int) -> bool:
    """Whether devices of a group along an axis are on several nodes: the last axis changes first."""
    names = list(mesh)
    inner = math.prod(mesh[name] for name in names[names.index(axis) + 1 :])
    return inner * mesh[axis] > per_node
