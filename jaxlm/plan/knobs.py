"""Which option helps most: by arithmetic on the compiled step, and by compiling the best of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm import sharding
from jaxlm.plan import arithmetic, compiled
from jaxlm.plan.chips import usable_memory
from jaxlm.plan.compiled import Compiled, DoesNotFit, Refused
from jaxlm.plan.meshes import Candidate
from jaxlm.plan.options import Options, Say
from jaxlm.plan.subject import Subject

# what the backward pass computes again, from nothing to everything
_REMAT = ("none", "minimal", "dots", "attention", "full")


def knobs(
    run: Subject, at: Candidate, step: Compiled | DoesNotFit, options: Options, say: Say
) -> list[dict[str, Any]]:
    """Changes of one option with memory and speed, the most helpful first.

    Speed is that of tokens as a multiple of the plan's, on paper. Memory is the compiled step's, with its activations
    in proportion to those on paper; the first `options.trials` changes are compiled.
    """
    topology, limit = options.topology, usable_memory(options.topology.chip)
    base, _ = compiled.known_memory(step, at.memory)
    fits = isinstance(step, Compiled) and base.total <= limit
    paper = max(arithmetic.activations(run, dict(at.mesh.shape)), 1.0)
    rows = []
    for option, value, changed in _changes(run, at):
        try:
            mesh = sharding.make_mesh(changed.config.mesh, list(at.mesh.devices.flat))
            changed.check(mesh)
            memory = arithmetic.memory(changed, mesh)
            time = arithmetic.time(changed, mesh, topology, memory.parameters)
        except (ValueError, NotImplementedError):
            continue
        kept = arithmetic.activations(changed, dict(mesh.shape)) / paper
        memory = dataclasses.replace(memory, activations=base.activations * kept)
        speed = None
        if time is not None and at.time is not None:
            tokens = changed.tokens_per_step / run.tokens_per_step
            speed = tokens * at.time.total / time.total
        rows.append(_Row(option, value, changed, mesh, memory.total, speed))

    def order(row: _Row) -> tuple[float, ...]:
        # what fits by its speed, and of equals what needs less; what does not fit by what it needs
        if row.memory > limit:
            return (1, row.memory)
        return (0, -round(row.speed or 1.0, 3), row.memory)

    rows.sort(key=order)
    for row in rows[: options.trials]:
        say(f"compiling with {row.option}={row.value}")
        try:
            row.memory = compiled.compile_step(row.run, row.mesh, topology).memory.total
        except DoesNotFit as e:
            row.memory = e.needed or float("inf")
        except Refused:
            rows.remove(row)
            continue
        row.source = "compiled"
    rows.sort(key=order)
    return [row.values(limit, fits) for row in rows]


@dataclasses.dataclass
class _Row:
    option: str
    value: Any
    run: Subject
    mesh: Any
    memory: float
    speed: float | None
    source: str = "arithmetic"

    def values(self, limit: float, fits: bool) -> dict[str, Any]:
        does = self.memory <= limit
        faster = self.speed is not None and self.speed > 1.005
        return {
            "option": self.option,
            "value": self.value,
            "memory": None if self.memory == float("inf") else round(self.memory),
            "speed": self.speed,
            "fits": does,
            # it makes the step fit, or it is faster and still fits
            "helps": does and (not fits or faster),
            "source": self.source,
        }


def _changes(run: Subject, at: Candidate) -> list[tuple[str, Any, Subject]]:
    """Neighbouring values of the options that trade memory for speed."""
    config = run.config
    changes: list[tuple[str, Any, Subject]] = []
    if config.compute.remat in _REMAT:
        index = _REMAT.index(config.compute.remat)
        for other in (index - 1, index + 1):
            if 0 <= other < len(_REMAT):
                remat: Any = _REMAT[other]
                compute = dataclasses.replace(config.compute, remat=remat)
                changes.append(("compute.remat", remat, run.change(compute=compute)))
    if not config.curriculum.ends:
        twice = 2 * config.batch_size
        changes.append(("batch_size", twice, run.change(batch_size=twice)))
    if config.batch_size % (2 * config.accumulate) == 0:
        changes.append(
            ("accumulate", 2 * config.accumulate, run.change(accumulate=2 * config.accumulate))
        )
    if config.accumulate % 2 == 0:
        half = config.accumulate // 2
        changes.append(("accumulate", half, run.change(accumulate=half)))
    shape = dict(at.mesh.shape)
    for axis in ("data", "tensor"):
        if shape.get(axis, 1) % 2 == 0:
            moved = shape | {axis: shape[axis] // 2, "fsdp": 2 * shape["fsdp"]}
            mesh = dataclasses.replace(config.mesh, **moved)
            changes.append(
                ("mesh.fsdp", f"{moved['fsdp']} ({axis} {moved[axis]})", run.change(mesh=mesh))
            )
            break
    return changes
