"""A plan as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.report.formats import count, size

KINDS = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "batch": "batch",
    "gradients": "gradients",
    "activations": "activations and workspace",
}


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The result of `planner.plan` for a terminal."""
    memory, time = plan["memory"], plan["time"]
    out = [
        f"{plan['name'] or 'run'} on {plan['topology']} ({plan['devices']} x {plan['device_kind']})",
        f"model         {count(plan['parameters'])} parameters, {count(plan['flops_per_token'])} FLOPs a token",
        f"step          {plan['batch_size']:,} rows of {plan['seq_len']:,} tokens: "
        f"{count(plan['tokens_per_step'])} tokens; accumulate {plan['accumulate']}, remat {plan['remat']}",
        f"mesh          {mesh_name(plan['mesh'])}",
        f"memory        {verdict(memory)}",
    ]
    out += [f"  {label:<27}{size(memory[kind]):>9}" for kind, label in KINDS.items()]
    if time is not None:
        out += [
            f"time          {milliseconds(time['expected'])} expected: {time['efficiency']:.0%} of the speed of "
            f"{milliseconds(time['least'])}",
            f"  compute ({time['source']}) {milliseconds(time['compute'])}; collectives beside it "
            f"{milliseconds(time['overlapped'])}, waited for {milliseconds(time['exposed'])}",
            f"speed         {count(plan['tokens_per_second'])} tokens/s, "
            f"{plan['tokens_per_second_per_device']:,.0f} a device, MFU {plan['mfu']:.1%}",
        ]
    if plan["cost_per_billion_tokens"] is not None:
        out.append(f"cost          {plan['cost_per_billion_tokens']:,.2f} a billion tokens")
    for i, c in enumerate(plan["collectives"]):
        start = "collectives" if i == 0 else ""
        out.append(f"{start:<14}{collective(c)}")
    out.append(f"helps most    {best(plan)}")
    out += [f"  {knob(k)}" for k in plan["knobs"]]
    for i, m in enumerate(plan["meshes"]):
        start = "meshes" if i == 0 else ""
        out.append(f"{start:<14}{mesh_line(m)}")
    return out + [f"note: {note}" for note in plan["notes"]]


def verdict(memory: Mapping[str, Any]) -> str:
    """What is needed of what there is."""
    total = f"{size(memory['total'])} a device, by the {memory['source']}"
    if memory["limit"] is None:
        return total
    fits = "fits" if memory["fits"] else "DOES NOT FIT"
    return f"{total}: {fits} in {size(memory['limit'])}"


def milliseconds(seconds: float) -> str:
    """A time of a step, of a small model too."""
    value = seconds * 1e3
    return f"{value:,.1f} ms" if value >= 10 else f"{value:.3g} ms"


def mesh_name(mesh: Mapping[str, int]) -> str:
    """A mesh in words, without axes of one device."""
    return " x ".join(f"{name}={n}" for name, n in mesh.items() if n != 1) or "one device"


def mesh_line(row: Mapping[str, Any]) -> str:
    """A mesh that was considered."""
    parts = [f"{mesh_name(row['mesh'])}: {row['result']}"]
    if row["memory"] is not None:
        parts.append(size(row["memory"]))
    if row["seconds"]:
        parts.append(f"{milliseconds(row['seconds'])} on paper")
    return ", ".join(parts)


def collective(c: Mapping[str, Any]) -> str:
    """All collectives of a kind over the same axes."""
    where = ", between nodes" if c["crosses_nodes"] else ""
    axes = " x ".join(c["axes"])
    return f"{c['operation']} over {axes}: {c['count']:,} a step, {size(c['bytes'])} sent by a device{where}"


def knob(k: Mapping[str, Any]) -> str:
    """What a changed option does."""
    memory = "more memory than there is" if k["memory"] is None else size(k["memory"])
    fits = "" if k["fits"] else ", does not fit"
    speed = "" if k["speed"] is None else f", {k['speed']:.2f} times as fast on paper"
    return f"{k['option']}={k['value']}: {memory} ({k['source']}){fits}{speed}"


def best(plan: Mapping[str, Any]) -> str:
    """The option that helps most."""
    helpful = [k for k in plan["knobs"] if k["helps"]]
    if helpful:
        return knob(helpful[0])
    if plan["memory"]["fits"]:
        return "no change of one option is faster and fits"
    return "no change of one option makes it fit: more devices, or another mesh"
