"""Gradual unfreezing as phases: the head alone first, then one block more at a time, from the last to the first.

Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", 1801.06146, section 3.3.
"""

from __future__ import annotations

import fnmatch
import itertools
from typing import Any

from jaxlm.config import FinetuneConfig, GroupConfig, PhaseConfig, RunConfig
from jaxlm.training.groups import REST, depth, leaves_of


def phases(config: RunConfig, params: Any) -> tuple[PhaseConfig, ...]:
    """The phases of a run with `unfreeze_over`; empty for other runs.

    The blocks that are unfrozen together have an optimizer state and a learning-rate schedule of their own, which begin
    there. In the last phase everything is trained, the embeddings too.

    Args:
        config: of the run.
        params: its (abstract) parameters.

    Raises:
        ValueError: there are fewer steps than phases.
    """
    if not isinstance(config, FinetuneConfig) or not config.unfreeze_over:
        return ()
    groups = _groups(params, config.unfreeze_blocks)
    count = len(groups)
    end = round(config.unfreeze_over * config.steps)
    if not count <= end < config.steps:
        raise ValueError(
            f"unfreeze_over={config.unfreeze_over} of steps={config.steps} is {end} steps for {count} phases, and "
            f"{config.steps - end} for the last one: raise steps or unfreeze_blocks={config.unfreeze_blocks}"
        )
    frozen = [GroupConfig(name=g.name, params=g.params, frozen=True) for g in groups]
    rest = GroupConfig(name=REST, params=("*",), frozen=True)
    early = (
        PhaseConfig(
            end=round(end * (i + 1) / count), groups=(*groups[: i + 1], *frozen[i + 1 :], rest)
        )
        for i in range(count)
    )
    return (*early, PhaseConfig(groups=tuple(groups)))


def _groups(params: Any, blocks: int) -> list[GroupConfig]:
    """The head with the final norm, then blocks, the last ones first; without a head the norm is with the last ones."""
    known = leaves_of(params)
    above = [p for p in ("head/*", "backbone/*final_norm/*") if fnmatch.filter(known, p)]
    groups = []
    if "head/*" in above:
        groups.append(GroupConfig(name="head", params=tuple(above)))
        above = []
    count = depth(known)
    for stop, start in itertools.pairwise([*range(count, 0, -blocks), 0]):
        name = f"block {start}" if stop - start == 1 else f"blocks {start} to {stop - 1}"
        # counted from the last block, which of an encoder and a decoder of other depths has another index; what lies
        # above belongs to an earlier group
        patterns = (*above, f"backbone/*blocks[{start - count}:]*")
        groups.append(GroupConfig(name=name, params=patterns))
        above = []
    return groups
