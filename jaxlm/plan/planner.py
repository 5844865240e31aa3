"""The plan of a run: the mesh, what it needs, how long it takes, and what would help."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Sequence
from typing import Any

import jax

from jaxlm.config import MeshConfig, RunConfig
from jaxlm.plan import arithmetic, compiled, meshes, subject
from jaxlm.plan.arithmetic import Memory
from jaxlm.plan.chips import usable_memory
from jaxlm.plan.compiled import Compiled, DoesNotFit, Refused
from jaxlm.plan.knobs import knobs
from jaxlm.plan.lines import mesh_name
from jaxlm.plan.meshes import Candidate
from jaxlm.plan.options import Options, Say
from jaxlm.plan.subject import Subject
from jaxlm.plan.topology import Topology

Tried = Compiled | DoesNotFit


def plan(config: RunConfig, options: Options, say: Say = lambda line: None) -> dict[str, Any]:
    """The plan as values for JSON.

    Args:
        config: of the run.
        options: what is asked.
        say: is told what is compiled next, which can take minutes.

    Raises:
        ValueError: the run cannot start on such devices, or no mesh fits.
    """
    topology = options.topology
    devices = topology.devices()
    run = subject.of(config)
    at, step, others = _choose(run, options, devices, say)
    run = run.change(mesh=at.config)
    limit = usable_memory(topology.chip)
    result: dict[str, Any] = {
        "topology": topology.name,
        "devices": topology.size,
        "device_kind": topology.chip.kind,
        "name": config.name,
        "parameters": sum(x.size for x in jax.tree.leaves(run.params)),
        "flops_per_token": run.flops_per_step / run.tokens_per_step,
        "tokens_per_step": run.tokens_per_step,
        "batch_size": run.config.batch_size,
        "seq_len": run.config.data.seq_len,
        "accumulate": run.config.accumulate,
        "remat": run.config.compute.remat,
        "mesh": dict(at.mesh.shape),
        "memory": _memory(step, at.memory, limit),
    }
    fits = result["memory"]["fits"]
    seconds = None
    if fits and topology.platform == "tpu":
        say("compiling a few layers for the compiler's estimate of the time")
        seconds = compiled.expected_seconds(run, at.mesh, topology)
    result["time"] = time = _time(run, at, step, seconds, options)
    result |= _speed(run, time, options)
    result["collectives"] = _collectives(step)
    result["knobs"] = knobs(run, at, step, options, say)
    result["meshes"] = others
    result["notes"] = _notes(run, options, step, time)
    result["versions"] = _versions(topology)
    return result


def _choose(
    run: Subject, options: Options, devices: Sequence[Any], say: Say
) -> tuple[Candidate, Tried, list[dict[str, Any]]]:
    """The mesh of the plan with its step, and what became of all that were considered."""
    topology = options.topology
    if not options.any_mesh:
        only = meshes.candidate(run, run.config.mesh, topology, devices)
        return only, _try(run, only, topology, say), []
    limit = usable_memory(topology.chip)
    found, impossible = meshes.candidates(run, topology, devices)
    if not found:
        # the one that splits nothing but rows, and the one that splits everything else
        ends = [
            f"{mesh_name(_sizes(config))}: {reason}"
            for config, reason in (impossible[-1], impossible[0])
        ]
        raise ValueError(
            f"no mesh of {topology.size} devices is possible; {'; '.join(dict.fromkeys(ends))}"
        )
    best: tuple[Candidate, Tried] | None = None
    refused: Refused | None = None
    rows: list[dict[str, Any]] = []
    # they are in the order of their time on paper, so that the first one that fits is the best
    for one in found:
        row: dict[str, Any] = {"mesh": _sizes(one.config), "seconds": one.time and one.seconds}
        has_fit = best is not None and _total(best[1]) <= limit
        if one.reason or has_fit or len(rows) >= options.most_meshes:
            later = "slower on paper" if one.time else "needs more memory on paper"
            why = one.reason or (later if has_fit else "not tried")
            rows.append(row | {"memory": round(one.memory.total), "result": why})
            continue
        try:
            step = _try(run, one, topology, say)
        except Refused as e:
            refused = e
            rows.append(row | {"memory": None, "result": str(e)})
            continue
        total = _total(step)
        why = "compiled, fits" if total <= limit else "compiled, does not fit"
        rows.append(row | {"memory": None if math.isinf(total) else round(total), "result": why})
        if best is None or total < _total(best[1]):
            best = one, step
    if best is None and refused is not None:
        raise refused
    if best is None:
        least = min(found, key=lambda c: c.memory.total)
        raise ValueError(
            f"no mesh of {topology.name} fits: the least that any needs is {least.memory.total / 2**30:.1f} GiB a "
            f"device with {mesh_name(_sizes(least.config))} (on paper), and there are {limit / 2**30:.1f}: take more "
            "devices, raise accumulate, or set compute.remat"
        )
    empty = {"seconds": None, "memory": None}
    rows += [{"mesh": _sizes(config), **empty, "result": why} for config, why in impossible]
    return *best, rows


def _try(run: Subject, one: Candidate, topology: Topology, say: Say) -> Tried:
    say(f"compiling for {mesh_name(one.mesh.shape)}")
    try:
        return compiled.compile_step(run.change(mesh=one.config), one.mesh, topology)
    except DoesNotFit as e:
        return e


def _memory(step: Tried, paper: Memory, limit: float) -> dict[str, Any]:
    """Bytes on a device by kind, and whether they fit."""
    known, source = compiled.known_memory(step, paper)
    return {
        **{name: round(value) for name, value in dataclasses.asdict(known).items()},
        "total": round(known.total),
        "limit": None if math.isinf(limit) else round(limit),
        "fits": isinstance(step, Compiled) and known.total <= limit,
        "source": source,
    }


def _time(
    run: Subject, at: Candidate, step: Tried, compiler: float | None, options: Options
) -> dict[str, Any] | None:
    """Seconds of a step by parts; None: unknown."""
    topology = options.topology
    if at.time is None:
        return None
    efficiency = options.efficiency or topology.chip.efficiency
    compute, overlapped, exposed = dataclasses.astuple(at.time)
    if isinstance(step, Compiled) and step.collectives is not None:
        overlapped = exposed = 0.0
        for c in step.collectives:
            seconds = c.bytes / arithmetic.speed(topology, c.group, c.crosses_nodes)
            if set(c.axes) <= set(arithmetic.OVERLAPPED):
                overlapped += seconds
            else:
                exposed += seconds
    source = "roofline"
    if compiler is not None:
        compute, source = compiler, "compiler"
    least = arithmetic.Time(compute, overlapped, exposed).total
    return {
        "compute": compute,
        "overlapped": overlapped,
        "exposed": exposed,
        "least": least,
        "efficiency": efficiency,
        "expected": least / efficiency,
        "source": source,
    }


def _speed(run: Subject, time: dict[str, Any] | None, options: Options) -> dict[str, Any]:
    """Tokens per second, MFU and costs; None where the time or the price is not known."""
    keys = ("tokens_per_second", "tokens_per_second_per_device", "mfu", "cost_per_billion_tokens")
    if time is None:
        return dict.fromkeys(keys)
    size, chip = options.topology.size, options.topology.chip
    tokens = run.tokens_per_step / time["expected"]
    assert chip.flops is not None
    cost = None
    if options.price is not None:
        cost = options.price * size * 1e9 / tokens / 3600
    mfu = run.flops_per_step / time["expected"] / (size * chip.flops)
    return dict(zip(keys, (tokens, tokens / size, mfu, cost)))


def _collectives(step: Tried) -> list[dict[str, Any]]:
    if isinstance(step, DoesNotFit) or step.collectives is None:
        return []
    return [
        {**dataclasses.asdict(c), "axes": list(c.axes), "bytes": round(c.bytes)}
        for c in step.collectives
    ]


def _total(step: Tried) -> float:
    """Bytes on a device."""
    if isinstance(step, DoesNotFit):
        return step.needed or math.inf
    return step.memory.total


def _notes(run: Subject, options: Options, step: Tried, time: dict[str, Any] | None) -> list[str]:
    topology = options.topology
    notes = list(run.notes)
    if isinstance(step, Compiled) and step.collectives is None:
        notes.append(
            "collectives are those on paper: this jaxlib cannot read the program of the installed libtpu"
        )
    if time is None:
        notes.append(f"time unknown: there is no data sheet of {topology.generation}")
    elif time["source"] == "roofline":
        notes.append(
            "time is a roofline: FLOPs on paper, the update and collectives by bytes, at the speeds of the data sheet"
        )
    else:
        notes.append(
            "time is the compiler's estimate from steps of few layers; attention kernels at the chip's peak, "
            "collectives by bytes at the speed of the data sheet"
        )
    if time is not None:
        given = options.efficiency is not None
        notes.append(
            f"expected: {time['efficiency']:.0%} of that speed, "
            + ("as given" if given else topology.chip.reached)
        )
    if compiled.lacks_cudnn(topology) and run.config.compute.attention in ("auto", "cudnn"):
        notes.append(
            "cuDNN is not installed: a stand-in of the same memory is compiled in its place"
        )
    if topology.platform == "gpu":
        notes.append(
            "a GPU's limit is the part of its memory that JAX reserves; XLA_PYTHON_CLIENT_MEM_FRACTION changes it"
        )
    return notes


def _versions(topology: Topology) -> dict[str, str]:
    names = ["jaxlm", "jax", "jaxlib"]
    names += {"tpu": ["libtpu"], "gpu": ["jax-cuda13-plugin"], "cpu": []}[topology.platform]
    return {name: importlib.metadata.version(name) for name in names}


def _sizes(config: MeshConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)
