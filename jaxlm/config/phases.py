"""What is trained when: groups of parameters, phases of a run, early stages with shorter rows or smaller batches."""

from __future__ import annotations

import dataclasses

from jaxlm.config.optimizer import OptimizerConfig
from jaxlm.config.values import check_at_least, check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Parameters that are trained in the same way: frozen, at a learning rate of their own, or by another optimizer.

    A frozen group has no gradient and no optimizer state, and takes no part in clipping or in the gradient norm.
    """

    # name of the group in other options and in messages
    name: str
    # patterns of parameter paths: "head/*", "*/attn/*", "*"; "*blocks[-2:]*" are the last two blocks of a stack
    params: tuple[str, ...]
    # do not train these parameters
    frozen: bool = False
    # multiplier of the learning rate of the group's optimizer
    rate: float = 1.0
    # another optimizer for this group; default: that of the run
    optimizer: OptimizerConfig | None = None

    def __post_init__(self):
        check_values(self, "groups")
        if not self.params:
            raise ValueError(f"groups: {self.name!r} has no params: give patterns such as 'head/*'")
        if self.name == "rest" and tuple(self.params) != ("*",):
            raise ValueError(
                "groups: the name 'rest' belongs to all parameters that no other group matches: choose another name, "
                "or params=('*',) to set how those are trained"
            )
        if self.rate <= 0:
            raise ValueError(
                f"groups: rate={self.rate} of {self.name!r} must be positive; to freeze parameters, set frozen"
            )
        if self.frozen and (self.rate != 1 or self.optimizer is not None):
            raise ValueError(
                f"groups: {self.name!r} is frozen, so rate and optimizer have no effect"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Consecutive steps in which the same groups are trained. A group that continues keeps its optimizer state."""

    # last step of the phase; unset in the last phase
    end: int | None = None
    # the same as a fraction of all steps; converted to `end` when the run starts, and fixed from then on
    end_fraction: float | None = None
    # as `groups` of the run
    groups: tuple[GroupConfig, ...] = ()
    # names of groups that are updated in turn, one entry per step: (("encoder",), ("encoder",), ("decoder",));
    # default: all groups at every step
    turns: tuple[tuple[str, ...], ...] = ()
    # patterns of parameters that are initialized again when the phase starts
    reset: tuple[str, ...] = ()

    def __post_init__(self):
        check_values(self, "phases")
        check_at_least(self, "phases: ", 1, "end")
        if self.end is not None and self.end_fraction is not None:
            raise ValueError("phases: give end or end_fraction, not both")
        if self.end_fraction is not None and not 0 < self.end_fraction < 1:
            raise ValueError(f"phases: end_fraction={self.end_fraction} is not between 0 and 1")
        for i, turn in enumerate(self.turns):
            if not turn:
                raise ValueError(
                    f"phases: turns[{i}] names no group, so that step would train nothing: name one, or remove it"
                )
        # "rest" is the group of all parameters that no other group matches
        trained = {group.name for group in self.groups if not group.frozen} | {"rest"}
        for name in {name for turn in self.turns for name in turn} - trained:
            raise ValueError(
                f"phases: turns name the group {name!r}; trained groups are {', '.join(sorted(trained))}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Early stages of a run with shorter rows or smaller batches; data.seq_len and batch_size apply after them.

    `--curriculum.ends 1000 3000 --curriculum.seq-lens 64 128` reads rows of 64 tokens in steps 1 to 1000 and of 128 in
    steps 1001 to 3000 (Shortformer, Press et al. 2021, 2012.15832; Li et al. 2022, 2108.06084). Growing batches: Smith
    et al. (2018, 1711.00489) and GPT-3 (Brown et al. 2020, 2005.14165, appendix B).
    """

    # last step of each early stage, ascending; default: no early stage
    ends: tuple[int, ...] = ()
    # tokens per row in each early stage; default: data.seq_len in all
    seq_lens: tuple[int, ...] = ()
    # rows per step in each early stage; default: batch_size in all
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self):
        check_values(self, "curriculum")
        if self.ends and not (self.seq_lens or self.batch_sizes):
            raise ValueError(
                f"curriculum.ends={self.ends} has no effect alone: set curriculum.seq_lens or "
                "curriculum.batch_sizes, or leave it unset"
            )
        if any(low >= high for low, high in zip((0, *self.ends), self.ends)):
            raise ValueError(f"curriculum.ends={self.ends} must be steps in ascending order")
        for name, least in (("seq_lens", 2), ("batch_sizes", 1)):
            values = getattr(self, name)
            if values and len(values) != len(self.ends):
                raise ValueError(
                    f"curriculum.{name} has {len(values)} numbers for the {len(self.ends)} stages that end at "
                    f"curriculum.ends={self.ends}: give one for each"
                )
            for i, value in enumerate(values):
                if value < least:
                    raise ValueError(f"curriculum.{name}[{i}]={value} must be at least {least}")
