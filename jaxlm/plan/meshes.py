"""The meshes that a run could have on some devices, and what arithmetic says about each."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.plan import arithmetic
from jaxlm.plan.arithmetic import Memory, Time
from jaxlm.plan.chips import usable_memory
from jaxlm.plan.subject import Subject
from jaxlm.plan.topology import Topology

# activations on paper are not exact: a mesh that needs so much more than there is, is not compiled
_DOUBT = 1.25


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh, and what it needs on paper."""

    config: MeshConfig
    mesh: Mesh
    memory: Memory
    # None: speeds are unknown
    time: Time | None
    # why it is not worth compiling; empty: it is
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Of a step; without known speeds what is sent decides nothing, and all are equal."""
        return 0.0 if self.time is None else self.time.total


def candidate(
    subject: Subject, config: MeshConfig, topology: Topology, devices: Sequence[Any]
) -> Candidate:
    """A mesh with its figures on paper.

    Raises:
        ValueError: it does not fit the devices, the batch or the model.
    """
    mesh = sharding.make_mesh(config, list(devices))
    subject.check(mesh)
    memory = arithmetic.memory(subject, mesh)
    reason, limit = "", usable_memory(topology.chip)
    if memory.total - memory.activations > limit or memory.total > _DOUBT * limit:
        reason = "does not fit on paper"
    time = arithmetic.time(subject, mesh, topology, memory.parameters)
    return Candidate(config, mesh, memory, time, reason)


def candidates(
    subject: Subject, topology: Topology, devices: Sequence[Any]
) -> tuple[list[Candidate], list[tuple[MeshConfig, str]]]:
    """All meshes of the devices, the fastest on paper first, and those that are impossible, with the reason.

    Axes whose traffic is not known on paper are as in the config.
    """
    good: list[Candidate] = []
    bad: list[tuple[MeshConfig, str]] = []
    for config in shapes(subject.config.mesh, topology.size):
        try:
            good.append(candidate(subject, config, topology, devices))
        except (ValueError, NotImplementedError) as e:
            bad.append((config, str(e).splitlines()[0]))
    # of equals the one with the simpler mesh, and the one that needs less memory
    key = lambda c: (bool(c.reason), c.seconds, c.memory.total, dataclasses.astuple(c.config))
    return sorted(good, key=key), bad


def shapes(config: MeshConfig, devices: int) -> Iterator[MeshConfig]:
    """The sizes of the known axes whose product is the number of devices; other axes stay as they are."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    others = {name: n for name, n in fields.items() if name not in arithmetic.KNOWN_AXES}
    left, rest = divmod(devices, math.prod(n for n in others.values() if isinstance(n, int)))
    if rest or any(n == -1 for n in others.values()):
        raise ValueError(
            f"the axes {others} of the mesh do not fit {devices} devices: set them to sizes whose product divides it"
        )
    sizes = [n for n in range(1, left + 1) if left % n == 0]
    names = arithmetic.KNOWN_AXES
    for chosen in itertools.product(sizes, repeat=len(names)):
        if math.prod(chosen) == left:
            yield dataclasses.replace(config, **dict(zip(names, chosen)))
