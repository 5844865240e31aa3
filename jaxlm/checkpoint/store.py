"""Checkpoints of a run: saved in the background, a few of them kept, and passed over when damaged.

Orbax writes and reads the arrays. Around it stands what it lacks: verification and one-line errors (in
`format.py`), falling back to an older checkpoint, and going on when a disk is full.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.checkpoint import format
from jaxlm.checkpoint.fingerprint import fingerprint
from jaxlm.checkpoint.format import CheckpointError
from jaxlm.config import CheckpointConfig

__all__ = ["CheckpointError", "Checkpoints", "describe", "fingerprint", "load_json", "load_params"]

_LEFTOVERS = ("*.orbax-checkpoint-tmp*", "*.deleting")


class Checkpoints:
    """The checkpoints of one run, in `<run folder>/checkpoints`; with several processes, all make every call."""

    def __init__(
        self,
        folder: str | os.PathLike,
        config: CheckpointConfig,
        *,
        best_metric: str | None = None,
        best_is_lower: bool = True,
        report: Callable[[str], Any] = print,
    ):
        """Opens the folder, making it if need be, and removes what a killed process left half written."""
        self._folder = pathlib.Path(os.path.abspath(folder))
        self._config = config
        self._best_metric = best_metric if config.keep_best else None
        self._best_is_lower = best_is_lower
        self._first = jax.process_index() == 0
        self._report = report if self._first else lambda line: None
        self._pending: tuple[int, concurrent.futures.Future] | None = None
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._failures = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return _steps(self._folder)

    def save(
        self,
        step: int,
        items: dict[str, Any],
        *,
        metrics: dict[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Saves trees of arrays and JSON values, in the background unless `wait`; nothing if the step has a checkpoint.

        The values are copied before it returns, so the caller may donate them. A save that fails is reported, at the
        latest by the next call.

        Raises:
            CheckpointError: `max_failures` saves failed in a row.
        """
        self._settle()
        if not _from_first(step in self.steps()):
            content = format.content(step, items, metrics or {})
            self._pending = step, self._start(step, content)
        # A save that failed at once; with several processes they settle together, at the next call.
        failed = jax.process_count() == 1 and self._pending and self._pending[1].done()
        if wait or failed:
            self._settle()

    def restore(self, target: Callable[[int], dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
        """The step and items of the newest checkpoint that is whole, or None when there is none at all.

        `target` gives for a step, by item, a tree of ShapeDtypeStruct with shardings, or None for JSON. Damaged ones
        are reported and renamed `<step>.corrupt` once an older one proves usable.

        Raises:
            CheckpointError: other parameters are stored than the target has, or no checkpoint is usable.
        """
        self._settle()
        damaged: dict[int, str] = {}
        while (step := self._newest_but(damaged)) is not None:
            try:
                items = format.read(self._folder / str(step), target(step))
            except format.Damaged as e:
                damaged[step] = str(e)
                continue
            if self._first:
                self._set_aside(damaged, step)
            return step, items
        if damaged:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise CheckpointError(
                f"{self._folder}: no checkpoint is usable ({reasons}); bring one back from a copy, or start in "
                "another folder"
            )
        return None

    def wait(self) -> None:
        """Returns when the last save is on disk or is reported as failed."""
        self._settle()

    def close(self) -> None:
        """Waits for the last save and ends the background thread."""
        try:
            self._settle()
        finally:
            self._background.shutdown()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except CheckpointError:
            if error is None:  # else the error on its way is the one to see; this one was reported
                raise

    def _start(self, step: int, content: dict[str, Any]) -> concurrent.futures.Future:
        try:
            response = format.start_saving(self._folder / str(step), content)
        except Exception as e:  # of the disk: the content was checked before
            failed: concurrent.futures.Future = concurrent.futures.Future()
            failed.set_exception(e)
            return failed
        return self._background.submit(self._finish, response)

    def _finish(self, response: Any) -> None:
        response.result()
        if self._first:
            self._prune()

    def _settle(self) -> None:
        """Waits for the save under way, and reports, cleans up and counts its failure."""
        if self._pending is None:
            return
        (step, outcome), self._pending = self._pending, None
        error = outcome.exception()
        if error is None:
            self._failures = 0
            return
        self._failures += 1
        self._sweep()
        free = shutil.disk_usage(self._folder).free / 1e9
        line = f"checkpoint {step} was not saved: {format.reason(error)}; {free:.1f} GB free in {self._folder}"
        self._report(line)
        if self._failures >= self._config.max_failures:
            raise CheckpointError(
                f"{self._failures} saves in a row failed (checkpoint.max_failures); the last: {line}"
            ) from error

    def _prune(self) -> None:
        """Deletes all but the newest, the best and every `keep_every`-th."""
        steps = self.steps()
        keep = set(steps[-self._config.keep :])
        if self._config.keep_every:
            keep |= {s for s in steps if s % self._config.keep_every == 0}
        if self._best_metric is not None:
            scores = {s: self._score(s) for s in steps}
            best = min(steps, key=lambda s: (scores[s], -s))
            if scores[best] < math.inf:
                keep.add(best)
        for step in set(steps) - keep:
            # renamed first, so that one half deleted is never taken for a checkpoint
            folder = self._folder / str(step)
            try:
                folder.rename(folder.with_suffix(".deleting"))
            except OSError as e:
                self._report(f"{folder} could not be removed: {format.reason(e)}")
        self._sweep("*.deleting")

    def _score(self, step: int) -> float:
        """The metric of a checkpoint, lower is better; infinite without one."""
        try:
            value = format.read_manifest(self._folder / str(step))["metrics"].get(
                self._best_metric, math.nan
            )
        except format.Damaged:
            return math.inf
        return math.inf if not math.isfinite(value) else value if self._best_is_lower else -value

    def _sweep(self, *patterns: str) -> None:
        """Removes leftovers of unfinished saves and deletions."""
        if not self._first:
            return
        for path in itertools.chain(*(self._folder.glob(p) for p in patterns or _LEFTOVERS)):
            try:
                shutil.rmtree(path)
            except OSError as e:
                self._report(f"{path} could not be removed: {format.reason(e)}")

    def _newest_but(self, damaged: dict[int, str]) -> int | None:
        step = _from_first(max(set(self.steps()) - set(damaged), default=-1))
        return None if step < 0 else step

    def _set_aside(self, damaged: dict[int, str], used: int) -> None:
        for step, reason in damaged.items():
            self._report(f"checkpoint {step} is damaged: {reason}; using {used}")
            free = (f".corrupt{n or ''}" for n in itertools.count())
            folder = self._folder / str(step)
            folder.rename(next(p for s in free if not (p := folder.with_suffix(s)).exists()))


def load_params(folder: str | os.PathLike, target: Any, *, step: int | None = None) -> Any:
    """Parameters alone, from a run folder, its checkpoints or one of them (the newest, unless `step`), verified.

    They are those meant for use: the item "average" where the optimizer keeps one (schedule-free), else "params".
    `target` is a tree of ShapeDtypeStruct with shardings: all stored parameters or a subtree of them.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or other parameters than the target's.
    """
    with _one(folder, step) as path:
        item = "average" if "average" in format.read_manifest(path)["arrays"] else "params"
        return format.read(path, {item: target}, subtree=True)[item]


def load_arrays(
    folder: str | os.PathLike, item: str, target: Any, *, step: int | None = None
) -> Any:
    """One item of arrays of a checkpoint, chosen and verified as in `load_params`."""
    with _one(folder, step) as path:
        return format.read(path, {item: target})[item]


def load_json(folder: str | os.PathLike, item: str, *, step: int | None = None) -> Any:
    """One JSON item of a checkpoint, chosen as in `load_params`; one process may call it alone."""
    with _one(folder, step) as path:
        return format.read_json(path, item, format.read_manifest(path))


def describe(folder: str | os.PathLike, *, step: int | None = None) -> dict[str, Any]:
    """What a checkpoint (chosen as in `load_params`) holds, without reading arrays.

    {"step": 300, "steps": [200, 300], "metrics": {}, "params": {"head/out": {"shape": (8, 4), "dtype": "float32"}}}
    """
    with _one(folder, step) as path:
        manifest = format.read_manifest(path)
    params = manifest["arrays"].get("params", {})
    return {
        "step": manifest["step"],
        "steps": _steps(path.parent),
        "metrics": manifest["metrics"],
        "params": {k: {"shape": tuple(v["shape"]), "dtype": v["dtype"]} for k, v in params.items()},
    }


def _steps(folder: pathlib.Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


@contextlib.contextmanager
def _one(folder: str | os.PathLike, step: int | None) -> Iterator[pathlib.Path]:
    """One checkpoint, given its folder, that of all of them or that of the run; Damaged becomes a CheckpointError."""
    path = pathlib.Path(os.path.abspath(folder))
    if not (step is None and path.name.isdecimal() and path.is_dir()):
        path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        steps = _steps(path)
        if not steps:
            raise CheckpointError(f"{path}: no checkpoint here; is it the folder of a run?")
        if step is not None and step not in steps:
            raise CheckpointError(f"{path}: no checkpoint of step {step}; there are {steps}")
        path = path / str(steps[-1] if step is None else step)
    try:
        yield path
    except format.Damaged as e:
        others = [s for s in _steps(path.parent) if str(s) != path.name]
        raise CheckpointError(
            f"{path} is damaged: {e}; other steps there: {others or 'none'}"
        ) from e


def _from_first(value: int) -> int:
    """Process 0's value on all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
