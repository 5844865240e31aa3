"""What is asked of a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlm.plan.topology import Topology

# is told what happens next
Say = Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked of a plan."""

    topology: Topology
    # the best mesh of all instead of that of the config
    any_mesh: bool = False
    # meshes that are compiled at most, if any may be chosen
    most_meshes: int = 3
    # changed options that are compiled to see whether they help
    trials: int = 1
    # of a chip for an hour; None: no costs
    price: float | None = None
    # the fraction of the speed on paper that is reached; None: that of the chip, see `chips`
    efficiency: float | None = None
