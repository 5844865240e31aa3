"""What a run needs for private training: its units, the noise of its budget, and its secret; and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.checkpoint import store
from jaxlm.config import RunConfig, json_text
from jaxlm.data.loader import Dataset
from jaxlm.data.records import Records
from jaxlm.data.units import PoissonBatchAt, Units
from jaxlm.nn.moe import has_experts
from jaxlm.training import accountant
from jaxlm.training.privacy import Mechanism

# role of the column that names the unit of a record
UNIT = "privacy_unit"
KEY_FILE = "privacy.key"
# what is guaranteed at the end of the run, for those who export its model
FACTS_FILE = "privacy.json"
# types of what is read back from that file
_NUMBERS = ("delta", "budget", "noise_multiplier", "clip", "sampling_probability")
_FACTS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(("units", "rows_per_unit", "steps"), int),
    **dict.fromkeys(("unit", "neighbours", "accountant"), str),
    "stated_public": list,
    "repeatable_noise": bool,
}


@dataclasses.dataclass(frozen=True)
class PrivateRun:
    """The units of a run, its noise, and room for its batches."""

    config: RunConfig
    units: Units
    # standard deviation of the noise, divided by the norm to which gradients are clipped
    noise: float
    # units that a batch has room for
    slots: int
    # of noise and sampling; 0 before the run starts
    secret: int = dataclasses.field(default=0, repr=False)

    @property
    def probability(self) -> float:
        """With which a unit takes part in a step."""
        return self.config.batch_size / len(self.units)

    @property
    def mechanism(self) -> Mechanism:
        """What is done to the gradients."""
        c, p = self.config, self.config.privacy
        one_by_one = has_experts(c.model)  # type: ignore[attr-defined]
        return Mechanism(
            p.clip, self.noise, c.batch_size, p.microbatch, self.secret, one_by_one=one_by_one
        )

    def batch_at(self, rows: np.ndarray | None, start: int) -> PoissonBatchAt:
        """The batches after `start` steps, of which this process has the slots `rows`."""
        draw = self.probability, self.slots, self.config.privacy.microbatch, self.secret
        return PoissonBatchAt(self.units, *draw, rows, start)

    def spent(self, step: int) -> float:
        """The epsilon that the first steps spend, rounded up to that of a whole twentieth of the run."""
        every = -(-self.config.steps // 20)
        return self.spent_exactly(min(-(-step // every) * every, self.config.steps))

    def spent_exactly(self, step: int) -> float:
        """The epsilon that the first steps spend."""
        delta = self.config.privacy.delta
        assert delta is not None
        return accountant.epsilon(self.noise, self.probability, step, delta)

    def facts(self, step: int) -> dict[str, Any]:
        """What is guaranteed after a step, for the summary and the model card."""
        p = self.config.privacy
        return {
            "epsilon": round(self.spent_exactly(step), 4),
            "delta": p.delta,
            "budget": p.epsilon,
            "unit": p.unit or "text or row",
            "units": len(self.units),
            "rows_per_unit": self.units.most,
            "neighbours": "one unit added or removed",
            "noise_multiplier": self.noise,
            "clip": p.clip,
            "sampling_probability": self.probability,
            "steps": step,
            "stated_public": list(p.public),
            "accountant": accountant.version(),
            "repeatable_noise": p.noise_seed is not None,
        }

    def describe(self) -> str:
        """A line about the guarantee."""
        p = self.config.privacy
        unit = p.unit or "text or row"
        line = (
            f"privacy: epsilon {p.epsilon:g} at delta {p.delta:g} for each {unit} of {len(self.units):,}; noise "
            f"{self.noise:.4g} x clip {p.clip:g}, each in a step with probability {self.probability:.3g}; logged "
            "losses and metrics are not private"
        )
        if p.noise_seed is not None:
            line += f"; who knows privacy.noise_seed={p.noise_seed} can remove the noise: for tests only"
        return line


def units_of(config: RunConfig, task: Any, rows: Dataset, data: Any) -> Units:
    """The units of the training rows.

    Args:
        config: of the run.
        task: that made the rows.
        rows: of the training data.
        data: the training data, from which the rows were made.

    Raises:
        ValueError: the task or its rows cannot be trained privately.
    """
    _check_task(task)
    find = getattr(rows, "owners", None)
    owners = None if find is None else find()
    if owners is None:
        hint = "set task.pack=False" if getattr(task.settings, "pack", False) else "use another"
        raise ValueError(
            f"privacy.epsilon: task {task.name} makes rows of several texts, whose gradients cannot be told apart: "
            f"{hint}{'' if hint.startswith('set') else ' task, or one source of text'}"
        )
    p = config.privacy
    if p.unit is not None:
        names = data.columns.get(UNIT) if isinstance(data, Records) else None
        if names is None:
            raise ValueError(
                f"privacy.unit={p.unit}: task {task.name} does not read records with columns: leave it unset, so that "
                "a text is the unit"
            )
        if all(name is None for name in names):
            raise ValueError(
                f"data.train: no row has a value in a column {p.unit!r}, which privacy.unit names"
            )
        for name, where in zip(names, data.ids):
            if name is None:
                raise ValueError(
                    f"{where}: no value in the column {p.unit!r} of privacy.unit, which says whose row this is"
                )
        _, people = np.unique(np.array(names, dtype=str), return_inverse=True)
        owners = people[owners]
    return Units.of(rows, np.asarray(owners), p.rows_per_unit, config.seed)


def build(config: RunConfig, units: Units) -> PrivateRun:
    """The private part of a run, with as much noise as its budget needs.

    Raises:
        ValueError: a batch is larger than the data, or no noise is enough.
    """
    p = config.privacy
    assert p.epsilon is not None and p.delta is not None
    if config.batch_size > len(units):
        raise ValueError(
            f"batch_size={config.batch_size} is more than the {len(units):,} units of data.train: lower it"
        )
    if p.delta >= 1 / len(units):
        raise ValueError(
            f"privacy.delta={p.delta:g} is not less than 1 / {len(units):,} units: publishing a unit at random would "
            "be allowed; lower it"
        )
    probability = config.batch_size / len(units)
    noise = accountant.noise_multiplier(p.epsilon, p.delta, probability, config.steps)
    most = accountant.room(len(units), probability, config.steps, p.epsilon, p.delta)
    return PrivateRun(config, units, noise, -(-most // p.microbatch) * p.microbatch)


def with_secret(private: PrivateRun, folder: pathlib.Path) -> PrivateRun:
    """The run with the secret of its folder, which is made when the run starts; the same on all processes.

    Raises:
        ValueError: the run has begun and its secret is gone, so that it cannot go on as it would have.
    """
    config = private.config
    if config.privacy.noise_seed is not None or config.dry_run:
        return dataclasses.replace(private, secret=config.privacy.noise_seed or 0)
    path = folder / KEY_FILE
    secret = 0
    if jax.process_index() == 0:
        if not path.exists():
            if store.has_any(folder):
                raise ValueError(
                    f"{path}: the secret of this run's noise is gone, so it cannot be resumed: start in another folder"
                )
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"{secrets.randbits(63)}\n")
        try:
            secret = int(path.read_text())
        except ValueError as e:
            raise ValueError(f"{path}: not a number: restore it") from e
    if jax.process_count() > 1:
        halves = np.array([secret >> 32, secret & 0xFFFFFFFF], np.uint32)
        high, low = multihost_utils.broadcast_one_to_all(halves)
        secret = int(high) << 32 | int(low)
    return dataclasses.replace(private, secret=secret)


def write_facts(private: PrivateRun, folder: pathlib.Path) -> None:
    """Writes what the run guarantees at its end.

    Raises:
        ValueError: the run has begun with other noise, as another version of the accountant may compute it.
    """
    if jax.process_index() != 0:
        return
    path, facts = folder / FACTS_FILE, private.facts(private.config.steps)
    if path.exists() and store.has_any(folder):
        began = _read_facts(path)
        if began["steps"] != facts["steps"]:
            raise ValueError(
                f"{path}: the noise of this run is for {began['steps']:,} steps, and it has {facts['steps']:,} now: "
                "set steps back, or start in another folder"
            )
        for name in ("noise_multiplier", "sampling_probability"):
            if began[name] != facts[name]:
                raise ValueError(
                    f"{path}: the run began with {name} {began[name]:.6g}, and it would be {facts[name]:.6g} now: "
                    f"resume with the version that it began with ({began['accountant']}), or start in another folder"
                )
    path.write_text(json.dumps(facts, indent=2) + "\n")


def statement(folder: pathlib.Path, step: int) -> str:
    """What is guaranteed for the model of a step of a private run, in a sentence.

    Raises:
        ValueError: the run's file that says so is missing.
    """
    facts = _read_facts(folder / FACTS_FILE)
    spent = facts["budget"]
    # without the accountant the budget of the whole run, which is at least that
    with contextlib.suppress(ValueError):
        spent = accountant.epsilon(
            facts["noise_multiplier"], facts["sampling_probability"], step, facts["delta"]
        )
    line = (
        f"differentially private with epsilon {spent:.4g} at delta {facts['delta']:g} for each {facts['unit']}, at "
        f"most {facts['rows_per_unit']} rows of one in a step ({facts['neighbours']}; {facts['accountant']}); noise "
        f"multiplier {facts['noise_multiplier']:.4g}, gradients clipped to {facts['clip']:g}, {facts['units']:,} units "
        f"sampled with probability {facts['sampling_probability']:.4g} in each of {step:,} steps"
    )
    if facts["stated_public"]:
        line += f"; stated to be public: {', '.join(facts['stated_public'])}"
    if facts["repeatable_noise"]:
        line += (
            "; the noise is repeatable, so there is no guarantee against someone who knows its seed"
        )
    return line


def _read_facts(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json_text.read_object(path)
        for name, kind in _FACTS.items():
            value = found.get(name)
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise ValueError(f"{path}: {name} is {str(value)[:40]!r}")
    except ValueError as e:
        raise ValueError(
            f"{e}: so the guarantee of this private run is unknown: restore the file"
        ) from e
    return found


def _check_task(task: Any) -> None:
    """Raises ValueError for a task whose loss is not a sum over examples."""
    if task.coupled:
        raise ValueError(
            f"privacy.epsilon: the loss of task {task.name} compares the examples of a batch, so that none has a "
            "gradient of its own to clip: there is no private training for it"
        )
    if jax.eval_shape(task.init_state) is not None:
        raise ValueError(
            f"privacy.epsilon: task {task.name} keeps statistics of its batches, which get no noise: there is no "
            "private training for it"
        )
    if getattr(task.settings, "class_weights", ()):
        raise ValueError(
            "task.class_weights cannot be combined with privacy.epsilon: the gradient of every example is clipped to "
            "the same norm, which takes such weights away: leave them unset"
        )
