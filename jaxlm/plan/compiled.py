"""Figures of a compiled step: its memory, its collectives, and the time that the compiler expects."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlm.config import EncoderDecoderConfig
from jaxlm.ops import target
from jaxlm.plan import arithmetic
from jaxlm.plan.arithmetic import Memory
from jaxlm.plan.collectives import Collective, collectives
from jaxlm.plan.subject import Subject
from jaxlm.plan.topology import Topology, first_line

# What the cost model would count wrongly is not done in a program that is compiled for its estimate.
_COUNTED = {
    # a product whose collective is cut into a loop is counted once, not as often as the loop runs
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    # prefetches in slices: joining them (a custom call to ConcatBitcast) counts as -1 second; v5p takes 0 only
    "xla_tpu_sliced_prefetch_max_slices": "0",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step."""

    memory: Memory
    # None: its text cannot be read
    collectives: tuple[Collective, ...] | None
    # seconds that compiling took
    seconds: float


class DoesNotFit(Exception):
    """The compiler needs more memory than a device has."""

    def __init__(self, needed: float | None):
        super().__init__("does not fit")
        # bytes on a device; None: it does not say
        self.needed = needed


class Refused(ValueError):
    """The compiler cannot compile the step at all."""


def known_memory(step: Compiled | DoesNotFit, paper: Memory) -> tuple[Memory, str]:
    """The memory of a step and who says so; where the compiler says a total only, the rest of it is activations."""
    if isinstance(step, Compiled):
        return step.memory, "compiler"
    if step.needed is None:
        return paper, "arithmetic"
    rest = step.needed - (paper.total - paper.activations)
    return dataclasses.replace(paper, activations=max(rest, 0.0)), "compiler"


def compile_step(subject: Subject, mesh: Mesh, topology: Topology) -> Compiled:
    """Compiles the step for a mesh.

    Raises:
        DoesNotFit: the compiler says so.
        Refused: the compiler refuses the step.
    """
    began = time.perf_counter()
    compiled = _compile(_lower(subject, mesh, topology))
    plan: Any = compiled.memory_analysis()
    state = arithmetic.memory(subject, mesh)
    inside = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    # what the arguments hold besides: counters, a reference model, padding of the layout
    rest = plan.argument_size_in_bytes - state.parameters - state.optimizer - state.batch
    gradients = min(state.gradients, inside)
    memory = dataclasses.replace(
        state, gradients=gradients, activations=max(inside - gradients + max(rest, 0), 0.0)
    )
    return Compiled(memory, _collectives(compiled, mesh, topology), time.perf_counter() - began)


def expected_seconds(subject: Subject, mesh: Mesh, topology: Topology) -> float | None:
    """Seconds of a step without its collectives by the compiler's own cost model; None: it has none for this model.

    The cost model counts the body of a loop once, so a step with few layers is compiled without loops, and one with
    twice as many; the difference is added for all other layers. What the model does not count, the attention kernels
    and loops within the loss, is added at the chip's peak speed. An estimate that no chip could reach is none.
    """
    model = subject.config.model
    period = _period(model)
    if topology.platform != "tpu" or period is None:
        return None
    parts = subject.config.accumulate
    costs = []
    for layers in (period, 2 * period):
        try:
            lowered = _lower(_with_layers(subject, layers), mesh, topology)
            costs.append(_cost(_compile(lowered, _COUNTED)))
        except (ValueError, DoesNotFit):
            # groups of parameters that name layers, or phases
            return None
    (first, first_flops), (second, second_flops) = costs
    more = (model.num_layers - period) / period
    seconds = first + more * (second - first)
    flops = first_flops + more * (second_flops - first_flops)
    peak = topology.chip.flops
    assert peak is not None
    # nothing is faster than int8 and fp8, twice the peak: the cost model lacks an operation
    if min(first - first_flops / (2 * peak), second - first) <= 0 or seconds < flops / (2 * peak):
        return None
    on_paper = subject.flops_per_step / (topology.size * parts)
    return parts * (seconds + max(on_paper - flops, 0.0) / peak)


def _collectives(
    compiled: jax.stages.Compiled, mesh: Mesh, topology: Topology
) -> tuple[Collective, ...] | None:
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        # a libtpu that is newer than jaxlib writes what that cannot read
        return None
    nodes = [i // topology.per_node for i in range(topology.size)]
    return tuple(collectives(text or "", dict(mesh.shape), nodes))


def _with_layers(subject: Subject, layers: int) -> Subject:
    """The step of a part of the batch with so many layers, without a loop over them."""
    config: Any = subject.config
    changes: dict[str, Any] = {"num_layers": layers}
    if isinstance(config.model, EncoderDecoderConfig) and config.model.num_decoder_layers:
        changes["num_decoder_layers"] = layers
    return subject.change(
        model=dataclasses.replace(config.model, **changes),
        compute=dataclasses.replace(config.compute, unroll=layers),
        batch_size=config.batch_size // config.accumulate,
        accumulate=1,
    )


def _period(model: Any) -> int | None:
    """After how many layers the kinds of layers repeat; None: a model whose layers cannot be counted so."""
    decoder = getattr(model, "num_decoder_layers", None)
    if not hasattr(model, "num_layers") or decoder not in (None, model.num_layers):
        return None
    if getattr(model, "layer_groups", None) is not None:
        return None
    patterns = [getattr(model, name, None) or (0,) for name in ("layer_pattern", "rope_pattern")]
    period = math.lcm(*map(len, patterns))
    return period if 2 * period <= model.num_layers else None


def _compile(lowered: jax.stages.Lowered, options: dict | None = None) -> jax.stages.Compiled:
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise Refused(f"the compiler refuses the step: {first_line(e)}") from e
        used = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", str(e))
        powers = {"K": 10, "M": 20, "G": 30, "T": 40}
        raise DoesNotFit(float(used[1]) * 2 ** powers[used[2]] if used else None) from e


def _cost(compiled: jax.stages.Compiled) -> tuple[float, float]:
    """Seconds and FLOPs of a program on one device."""
    costs: Any = compiled.cost_analysis()
    if not costs or "optimal_seconds" not in costs:
        raise ValueError("the compiler has no estimate")
    return costs["optimal_seconds"], costs["flops"]


def _lower(subject: Subject, mesh: Mesh, topology: Topology) -> jax.stages.Lowered:
    with target.kernel_stand_ins() if lacks_cudnn(topology) else contextlib.nullcontext():
        return subject.lower(mesh)


def lacks_cudnn(topology: Topology) -> bool:
    """Whether it is compiled for GPUs on a machine without cuDNN, whose kernels are then replaced."""
    return topology.platform == "gpu" and importlib.util.find_spec("nvidia.cudnn") is None
