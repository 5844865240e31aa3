"""What a compiled program sends between devices, by mesh axis, read from its HLO text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_SHAPE = re.compile(r"\b(pred|bf16|f8\w*|[fsuc]\d+)\[([\d,]*)\]")
_OPERATIONS = "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf" = (.*?) ({_OPERATIONS})(-start)?\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a program of one kind over the same axes of the mesh."""

    operation: str
    # axes along which the devices of a group differ
    axes: tuple[str, ...]
    # devices of a group
    group: int
    # whether a group has devices of several nodes
    crosses_nodes: bool
    # how often it runs in a step
    count: int
    # bytes that each device sends in a step, by the usual ring algorithms
    bytes: float


def collectives(hlo: str, mesh: Mapping[str, int], nodes: Sequence[int]) -> list[Collective]:
    """The collectives of a program, most bytes first; bodies of loops count as often as they run.

    Args:
        hlo: text of the compiled module.
        mesh: devices along each axis, in order.
        nodes: the node of each device, in the order of the mesh.
    """
    computations = dict(_computations(hlo))
    runs = _runs(computations)
    found: dict[tuple[str, tuple[str, ...], int, bool], list[float]] = defaultdict(lambda: [0, 0.0])
    seen: set[str] = set()
    for name, lines in computations.items():
        # a TPU's reduce-scatter is an all-reduce in a fusion that keeps a part of the result
        scatters = "scatter" in name
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match is None or not runs[name]:
                continue
            result, operation, start = match.groups()
            channel = re.search(r"channel_id=(\d+)", line)
            if channel is not None:
                # one that runs in the background may be written in several places
                if channel[0] in seen:
                    continue
                seen.add(channel[0])
            groups = _groups(line, math.prod(mesh.values()))
            group = len(groups[0])
            if group < 2:
                continue
            axes = _axes(groups, mesh)
            if operation == "collective-permute":
                # pairs along an axis
                group = math.prod(mesh[name] for name in axes)
            if operation == "all-reduce" and scatters:
                operation, size = "reduce-scatter", _size(result, False)
            else:
                size = _size(result, bool(start) and operation != "all-reduce")
                # a part of it is the result, but a start has the whole operand besides
                size *= group if operation == "reduce-scatter" and not start else 1
            key = (operation, axes, group, _crosses(groups, nodes))
            found[key][0] += runs[name]
            found[key][1] += runs[name] * sent(operation, size, group)
    made = [Collective(*key, round(n), total) for key, (n, total) in found.items()]
    return sorted(made, key=lambda c: -c.bytes)


def sent(operation: str, size: float, group: int) -> float:
    """Bytes that a device sends for a collective over an array of `size` bytes (the larger side), by rings."""
    if operation == "collective-permute":
        return size
    return (2 if operation == "all-reduce" else 1) * size * (group - 1) / group


def _computations(hlo: str) -> Iterator[tuple[str, list[str]]]:
    """The computations of a module: name and lines; that of the entry is "ENTRY"."""
    name = ""
    lines: list[str] = []
    for line in hlo.splitlines():
        if line.startswith("}"):
            yield name, lines
        elif line.endswith("{") and (line.startswith(("%", "ENTRY")) or " -> " in line):
            name = "ENTRY" if line.startswith("ENTRY") else line.split()[0].lstrip("%")
            lines = []
        else:
            lines.append(line)


def _runs(computations: Mapping[str, list[str]]) -> dict[str, int]:
    """How often each computation runs; a branch counts as taken."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in computations.items():
        for line in lines:
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += [b.strip().lstrip("%") for b in branches.split(",")]
            times = _trips(line, computations) if " while(" in line else 1
            for other in called:
                calls[other].append((name, times))
    runs: dict[str, int] = {"ENTRY": 1}

    def count(name: str) -> int:
        if name not in runs:
            runs[name] = sum(count(caller) * times for caller, times in calls[name])
        return runs[name]

    return {name: count(name) for name in computations}


def _trips(line: str, computations: Mapping[str, list[str]]) -> int:
    """How often a loop runs: as XLA says, or by the constant that its counter is compared with; 1 if unknown."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = computations.get(condition[1], []) if condition else []
    for last in lines:
        if " compare(" in last and "direction=LT" in last:
            bound = re.search(r"compare\([^,]*, %?([\w.\-]+)\)", last)
            for other in lines:
                if bound and re.match(rf"\s*%?{re.escape(bound[1])} = ", other):
                    value = re.search(r"constant\((\d+)\)", other)
                    return int(value[1]) if value else 1
    return 1


def _size(result: str, is_pair: bool) -> float:
    """Bytes of the arrays of a type; of an asynchronous start, which has operands and results, the larger half."""
    sizes = []
    for dtype, dims in _SHAPE.findall(result):
        shape = [int(d) for d in dims.split(",") if d]
        bits = _BITS.get(dtype) or (8 if dtype.startswith("f8") else int(dtype[1:]))
        if shape or not is_pair:
            sizes.append(math.prod(shape) * bits / 8)
    if not is_pair:
        return sum(sizes)
    half = len(sizes) // 2
    return max(sum(sizes[:half]), sum(sizes[half:]))


def _groups(line: str, count: int) -> np.ndarray:
    """The devices that communicate, [groups, devices of a group]; for a permutation the pairs."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return np.array(
            [[int(x) for x in p.split(",")] for p in re.findall(r"\{(.*?)\}", pairs[1])]
        )
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        rows = [[int(x) for x in g.split(",")] for g in re.findall(r"\{([\d,]+)\}", listed[1])]
        return np.array(rows)
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, dims = ([int(x) for x in iota[i].split(",")] for i in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        if iota[3]:
            ids = ids.transpose([int(x) for x in iota[3].split(",")])
        return ids.reshape(shape)
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        chosen = re.findall(r"'(\w+)'", named[2])
        order = [i for i, name in enumerate(axes) if name not in chosen]
        order += [list(axes).index(name) for name in chosen]
        ids = np.arange(math.prod(axes.values())).reshape(list(axes.values())).transpose(order)
        return ids.reshape(-1, math.prod(axes[name] for name in chosen))
    return np.arange(count)[None]


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which the devices of a group differ."""
    coordinates = np.array(np.unravel_index(groups, tuple(mesh.values())))
    differ = (coordinates != coordinates[:, :, :1]).any((1, 2))
    return tuple(name for name, is_one in zip(mesh, differ) if is_one)


def _crosses(groups: np.ndarray, nodes: Sequence[int]) -> bool:
    own = np.asarray(nodes)[groups]
    return bool((own != own[:, :1]).any())
