"""The phases of a run: which groups of parameters are trained in which steps, and by which optimizers.

A run has one phase unless its config or its task defines more. The optimizer state is that of the only trained group,
or {group: state} for several; a group that the next phase trains with the same optimizer keeps its state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax

from jaxlm.config import FinetuneConfig, OptimizerConfig, PhaseConfig, RunConfig
from jaxlm.training import groups, optimizer, unfreezing
from jaxlm.training.groups import Split


def resolve(config: RunConfig, phases: Sequence[PhaseConfig]) -> tuple[PhaseConfig, ...]:
    """The phases with their ends as steps; `phases` are those of the task, used if the config has none.

    Raises:
        ValueError: the ends do not ascend, or a phase has no step.
    """
    if config.groups or (
        isinstance(config, FinetuneConfig) and (config.train_only != "all" or config.unfreeze_over)
    ):
        phases = ()
    phases = tuple(config.phases or phases)
    out: list[PhaseConfig] = []
    for i, phase in enumerate(phases):
        end = phase.end
        if phase.end_fraction is not None:
            end = round(phase.end_fraction * config.steps)
        if i == len(phases) - 1:
            if end not in (None, config.steps):
                raise ValueError(
                    f"phases[{i}] is the last and ends with the run, at step {config.steps}: leave its end out"
                )
            end = None
        elif end is None:
            raise ValueError(f"phases[{i}] needs an end: only the last phase ends with the run")
        elif not ((out[-1].end or 0) if out else 0) < end < config.steps:
            raise ValueError(
                f"phases[{i}] ends at step {end}: ends must ascend, from 1 to less than steps={config.steps}"
            )
        out.append(dataclasses.replace(phase, end=end, end_fraction=None))
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a group is trained in a phase."""

    optimizer: OptimizerConfig
    # length of its schedule: its updates in this phase and in the adjacent phases that continue it
    steps: int
    # whether it continues from the previous phase, and keeps its optimizer state
    continues: bool
    # steps of its schedule that are done when the phase starts
    steps_before: int


class Phase:
    """Consecutive steps in which the same groups are trained."""

    def __init__(
        self,
        index: int,
        first: int,
        last: int,
        config: PhaseConfig,
        split: Split,
        trained: dict[str, Trained],
        *,
        clip_norm: float,
        multipliers: Any = None,
    ):
        """`multipliers` of the learning rate are a tree with the structure of the parameters; None: 1."""
        self.index, self.first, self.last = index, first, last
        self.turns, self.reset = config.turns, config.reset
        self.split, self.trained = split, trained
        self._clip_norm = clip_norm
        self._optimizers = {
            name: optimizer.make_optimizer(
                group.optimizer,
                group.steps,
                None if multipliers is None else split.take(multipliers, name),
            )
            for name, group in trained.items()
        }
        # of the group whose learning rate is logged
        first_group = next(iter(trained.values()))
        self._schedule = optimizer.make_schedule(first_group.optimizer, first_group.steps)

    def __str__(self) -> str:
        is_all = list(self.trained) == [groups.REST] and not self.split.frozen
        names = "everything" if is_all else ", ".join(self.trained)
        parts = [f"steps {self.first:,} to {self.last:,}: trains {names}"]
        if self.turns:
            parts.append(f"in turns {' | '.join(', '.join(turn) for turn in self.turns)}")
        if self.split.frozen:
            parts.append(f"freezes {', '.join(self.split.frozen)}")
        if self.reset:
            parts.append(f"resets {', '.join(self.reset)}")
        return "; ".join(parts)

    @property
    def keeps_average(self) -> bool:
        """Whether the parameters to evaluate differ from those that are trained (schedule-free optimizers)."""
        return any(optimizer.keeps_average(group.optimizer) for group in self.trained.values())

    def turn(self, step: int) -> int:
        """Index of the turn of a step; 0 without turns."""
        return (step - self.first) % len(self.turns) if self.turns else 0

    def active(self, turn: int) -> tuple[str, ...]:
        """The groups that are updated in a turn."""
        return self.turns[turn] if self.turns else tuple(self.trained)

    def learning_rate(self, step: int) -> float:
        """The learning rate of the first group, at its last update up to a step of this phase."""
        name, group = next(iter(self.trained.items()))
        done = _updates(self.turns, step - self.first + 1, name)
        return float(self._schedule(max(group.steps_before + done - 1, 0)))

    def trainable(self, params: Any, names: Sequence[str]) -> dict[str, Any]:
        """The parameters of some groups: {group: tree}."""
        return {name: self.split.take(params, name) for name in names}

    def init(self, params: Any) -> Any:
        """A fresh optimizer state."""
        return self._pack(
            {n: tx.init(self.split.take(params, n)) for n, tx in self._optimizers.items()}
        )

    def update(self, grads: dict[str, Any], opt_state: Any, params: Any) -> tuple[Any, Any]:
        """New parameters and optimizer state from the mean gradients of some groups."""
        if self._clip_norm:
            clip = optax.clip_by_global_norm(self._clip_norm)
            grads, _ = clip.update(grads, clip.init(None))
        states = self._unpack(opt_state)
        parts = {}
        for name, gradient in grads.items():
            own = self.split.take(params, name)
            updates, state = self._optimizers[name].update(gradient, states[name], own)
            parts[name] = optax.apply_updates(own, updates)
            states = {**states, name: state}
        return self.split.put(params, parts), self._pack(states)

    def evaluation_params(self, params: Any, opt_state: Any) -> Any:
        """The parameters to evaluate: averages for groups whose optimizer keeps them."""
        if not self.keeps_average:
            return params
        states = self._unpack(opt_state)
        parts = {
            name: optimizer.evaluation_params(states[name], self.split.take(params, name))
            for name in states
        }
        return self.split.put(params, parts)

    def enter(self, before: Phase, params: Any, opt_state: Any, fresh: Any) -> tuple[Any, Any]:
        """Parameters and optimizer state at the start of this phase, from those at the end of the previous one.

        If this phase does not continue a schedule-free group, its parameters become their average. `fresh` are random
        parameters, used for those that are reset.
        """
        old = before._unpack(opt_state)
        left = {
            n: s for n, s in old.items() if not (n in self.trained and self.trained[n].continues)
        }
        averages = {
            name: optimizer.evaluation_params(state, before.split.take(params, name))
            for name, state in left.items()
        }
        params = before.split.put(params, averages)
        if self.reset:
            params = groups.reset(params, fresh, self.reset)
        states = {
            name: old[name]
            if self.trained[name].continues
            else tx.init(self.split.take(params, name))
            for name, tx in self._optimizers.items()
        }
        return params, self._pack(states)

    def _pack(self, states: dict[str, Any]) -> Any:
        return next(iter(states.values())) if len(self._optimizers) == 1 else states

    def _unpack(self, opt_state: Any) -> dict[str, Any]:
        if len(self._optimizers) == 1:
            return {next(iter(self._optimizers)): opt_state}
        return dict(opt_state)


def make_phases(config: RunConfig, task_phases: Sequence[PhaseConfig], params: Any) -> list[Phase]:
    """The phases of a run; a single one if neither its config nor its task defines any.

    Args:
        config: of the run.
        task_phases: those of the task, used if the config has none.
        params: (abstract) parameters.
    """
    configs = (
        resolve(config, task_phases)
        or unfreezing.phases(config, params)
        or (PhaseConfig(groups=groups.of_config(config, params)),)
    )
    splits = [Split(groups.with_base(config, phase.groups, params), params) for phase in configs]
    for i, phase in enumerate(configs):
        groups.check_patterns(phase.reset, params, f"phases[{i}].reset: pattern {{}}")
        _check_turns(phase.turns, splits[i], f"phases[{i}].turns")
    decay = config.layer_decay if isinstance(config, FinetuneConfig) else 1.0
    multipliers = None if decay == 1 else optimizer.layer_decay_multipliers(decay, params)
    ends = [0, *(phase.end or config.steps for phase in configs)]
    return [
        Phase(
            i,
            ends[i] + 1,
            ends[i + 1],
            phase,
            splits[i],
            {n: _trained(config, configs, splits, ends, i, n) for n in splits[i].trained},
            clip_norm=config.optimizer.clip_norm,
            multipliers=multipliers,
        )
        for i, phase in enumerate(configs)
    ]


def _check_turns(turns: Sequence[Sequence[str]], split: Split, where: str) -> None:
    """Raises ValueError if turns name a group that is not trained, or leave out one that is."""
    if not turns:
        return
    named = {name for turn in turns for name in turn}
    for name in sorted(named - set(split.trained)):
        raise ValueError(
            f"{where} name {name!r}, which is frozen or has no parameters; trained groups are "
            f"{', '.join(split.trained)}"
        )
    for name in split.trained:
        if name not in named:
            raise ValueError(
                f"{where} leave out {name!r}, which is then never updated: name it in a turn, or freeze its parameters "
                "by a group"
            )


def index_at(configs: Sequence[PhaseConfig], step: int) -> int:
    """The index of the phase of a step, from resolved configs; 0 for a run without phases."""
    return sum(phase.end is not None and phase.end < step for phase in configs)


def at_step(phases: Sequence[Phase], step: int) -> Phase:
    """The phase of a step (steps count from 1); for step 0 the first phase."""
    return next(phase for phase in phases if step <= phase.last)


def _updates(turns: Sequence[Sequence[str]], steps: int, name: str) -> int:
    """In how many of the first steps of a phase a group is updated."""
    if not turns:
        return steps
    cycles, rest = divmod(steps, len(turns))
    in_turns = [name in turn for turn in turns]
    return cycles * sum(in_turns) + sum(in_turns[:rest])


def _trained(
    config: RunConfig,
    phases: Sequence[PhaseConfig],
    splits: Sequence[Split],
    ends: Sequence[int],
    index: int,
    name: str,
) -> Trained:
    """How a group is trained in phase `index`: its schedule spans consecutive phases that continue it."""

    def continues(i: int) -> bool:
        """Whether phase i continues the training of the group from phase i - 1."""
        if not 0 < i < len(splits) or not (
            name in splits[i].trained and name in splits[i - 1].trained
        ):
            return False
        return (
            splits[i].trained[name].optimizer == splits[i - 1].trained[name].optimizer
            and splits[i].trained[name].rate == splits[i - 1].trained[name].rate
            and splits[i].owns_the_same(splits[i - 1], name)
            and not splits[i].owns_any(name, phases[i].reset)
        )

    def updates(i: int) -> int:
        return _updates(phases[i].turns, ends[i + 1] - ends[i], name)

    first = last = index
    while continues(first):
        first -= 1
    while continues(last + 1):
        last += 1
    steps = sum(updates(i) for i in range(first, last + 1))
    group = splits[index].trained[name]
    own = group.optimizer or config.optimizer
    own = dataclasses.replace(own, learning_rate=own.learning_rate * group.rate)
    if own.warmup_steps > steps:
        raise ValueError(
            f"optimizer.warmup_steps={own.warmup_steps} is more than the {steps} steps in which the group {name!r} is "
            "trained: the learning rate would never reach its peak; lower it"
        )
    before = sum(updates(i) for i in range(first, index))
    return Trained(own, steps, continues(index), before)
