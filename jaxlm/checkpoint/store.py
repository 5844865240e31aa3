"""Checkpoints of a run: saved in the background, a limited number kept, and skipped if corrupt.

Orbax writes and reads the arrays. This package adds what it lacks: verification and one-line errors (in
`format.py`), falling back to an older checkpoint, and continuing when a disk is full.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.checkpoint import format, places
from jaxlm.checkpoint.fingerprint import fingerprint
from jaxlm.checkpoint.format import CheckpointError
from jaxlm.config import CheckpointConfig
from jaxlm.config.urls import refuse_other_url
from jaxlm.remote import mirror
from jaxlm.remote.objects import RemoteError

__all__ = ["CheckpointError", "Checkpoints", "describe", "fingerprint", "load_json", "load_params"]


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
        fatal: Callable[[str], Any] = lambda line: None,
        prepare: Callable[[], Any] = lambda: None,
    ):
        """Opens the folder, creating it if necessary, and removes incomplete saves of a killed process.

        `fatal` is called in another thread when a save of one process of several fails: the others wait for it.
        `prepare` is called before a save begins, which fails if it raises an error.
        """
        refuse_other_url(folder)
        self._place = places.of(folder)
        self._prepare = prepare
        self._config = config
        self._best_metric = best_metric if config.keep_best else None
        self._best_is_lower = best_is_lower
        self._is_main = jax.process_index() == 0
        self._report = report if self._is_main else lambda line: None
        self._fatal = fatal if jax.process_count() > 1 else lambda line: None
        self._pending: tuple[int, concurrent.futures.Future] | None = None
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._failures = 0
        if isinstance(self._place, places.BucketPlace):
            self._place.check_processes(jax.process_count())
        self._place.make()
        self._sweep()

    def steps(self) -> list[int]:
        """The steps for which there is a checkpoint, ascending."""
        return self._place.steps()

    def save(
        self,
        step: int,
        items: dict[str, Any],
        *,
        metrics: dict[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Saves trees of arrays and JSON values, in the background unless `wait`; no-op if the step has a checkpoint.

        The values are copied before it returns, so the caller may donate them. A failed save is reported by the next
        call at the latest.

        Raises:
            CheckpointError: `max_failures` saves failed in a row.
        """
        self._settle()
        if not _from_first(step in self.steps()):
            content = format.content(step, items, metrics or {})
            self._pending = step, self._start(step, content)
        # A save that failed immediately; several processes handle it together, at the next call.
        failed = jax.process_count() == 1 and self._pending and self._pending[1].done()
        if wait or failed:
            self._settle()

    def restore(self, target: Callable[[int], dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
        """The step and items of the newest intact checkpoint, or None if there is no checkpoint.

        `target` maps a step to a dict: for each item a tree of ShapeDtypeStruct with shardings, or None for JSON.
        Corrupt checkpoints are reported and renamed to `<step>.corrupt` once an older one has been read.

        Raises:
            CheckpointError: the stored parameters do not match the target, or no checkpoint is usable.
        """
        self._settle()
        corrupt: dict[int, str] = {}
        while (step := self._newest_except(corrupt)) is not None:
            try:
                items = format.read(self._place.path(step), target(step))
            except format.Corrupt as e:
                corrupt[step] = str(e)
                continue
            if self._is_main:
                self._set_aside(corrupt, step)
            return step, items
        if corrupt:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in corrupt.items())
            raise CheckpointError(
                f"{self._place.folder}: no checkpoint is usable ({reasons}); restore one from a backup, or start in "
                "another folder"
            )
        return None

    def wait(self) -> None:
        """Returns when the last save is on disk or has been reported as failed."""
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
            if (
                error is None
            ):  # otherwise the active exception matters more; this one has been reported
                raise

    def _start(self, step: int, content: dict[str, Any]) -> concurrent.futures.Future:
        try:
            self._prepare()
            response = format.start_saving(self._place.target(step), content)
        except Exception as e:  # a disk error: the content was checked before
            self._fatal(self._failure(step, e))
            failed: concurrent.futures.Future = concurrent.futures.Future()
            failed.set_exception(e)
            return failed
        return self._background.submit(self._finish, step, response)

    def _finish(self, step: int, response: Any) -> None:
        try:
            response.result()
            self._place.commit(step)
        except Exception as e:
            self._fatal(self._failure(step, e))
            raise
        if self._is_main:
            self._prune()

    def _failure(self, step: int, error: BaseException) -> str:
        reason = str(error) if isinstance(error, RemoteError) else format.reason(error)
        return f"checkpoint {step} was not saved: {reason}{self._place.room()}"

    def _settle(self) -> None:
        """Waits for the pending save; if it failed, reports it, cleans up and counts the failure."""
        if self._pending is None:
            return
        (step, outcome), self._pending = self._pending, None
        error = outcome.exception()
        if error is None:
            self._failures = 0
            return
        self._failures += 1
        self._sweep()
        line = self._failure(step, error)
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
            # of equal ones the first, as in the run's summary
            best = min(steps, key=lambda s: (scores[s], s))
            if scores[best] < math.inf:
                keep.add(best)
        for step in set(steps) - keep:
            try:
                self._place.remove(step)
            except (OSError, RemoteError) as e:
                self._not_removed(str(self._place.path(step)), e)
        self._sweep()

    def _score(self, step: int) -> float:
        """The metric of a checkpoint, lower is better; infinite if it has none."""
        try:
            value = format.read_manifest(self._place.path(step))["metrics"].get(
                self._best_metric, math.nan
            )
        except format.Corrupt:
            return math.inf
        return math.inf if not math.isfinite(value) else value if self._best_is_lower else -value

    def _sweep(self) -> None:
        """Removes leftovers of unfinished saves and deletions."""
        if self._is_main:
            self._place.sweep(self._not_removed)

    def _not_removed(self, path: str, error: Exception) -> None:
        self._report(f"{path} could not be removed: {format.reason(error)}")

    def _newest_except(self, corrupt: dict[int, str]) -> int | None:
        step = _from_first(max(set(self.steps()) - set(corrupt), default=-1))
        return None if step < 0 else step

    def _set_aside(self, corrupt: dict[int, str], used: int) -> None:
        for step, reason in corrupt.items():
            self._report(f"checkpoint {step} is corrupt: {reason}; using {used}")
            self._place.set_aside(step)


def load_params(folder: str | os.PathLike, target: Any, *, step: int | None = None) -> Any:
    """Only the parameters, verified, of the newest checkpoint or that of `step`.

    These are the parameters for inference: the item "average" if the optimizer keeps one (schedule-free), otherwise
    "params". `folder` is a run folder, its checkpoints folder or a single checkpoint. `target` is a tree of
    ShapeDtypeStruct with shardings: all stored parameters or a subtree of them.

    Raises:
        CheckpointError: there is no checkpoint, it is corrupt, or its parameters do not match the target.
    """
    with _find(folder, step) as path:
        item = "average" if "average" in format.read_manifest(path)["arrays"] else "params"
        return format.read(path, {item: target}, subtree=True)[item]


def load_arrays(
    folder: str | os.PathLike, item: str, target: Any, *, step: int | None = None
) -> Any:
    """One item of arrays of a checkpoint, selected and verified as in `load_params`."""
    with _find(folder, step) as path:
        return format.read(path, {item: target})[item]


def load_json(folder: str | os.PathLike, item: str, *, step: int | None = None) -> Any:
    """One JSON item of a checkpoint, selected as in `load_params`; a single process may call it."""
    with _find(folder, step) as path:
        return format.read_json(path, item, format.read_manifest(path))


def describe(folder: str | os.PathLike, *, step: int | None = None) -> dict[str, Any]:
    """The contents of a checkpoint (selected as in `load_params`), without reading arrays.

    {"step": 300, "steps": [200, 300], "metrics": {}, "params": {"head/out": {"shape": (8, 4), "dtype": "float32"}}}
    """
    place, _ = _place_of(folder, step)
    with _find(folder, step) as path:
        manifest = format.read_manifest(path)
    params = manifest["arrays"].get("params", {})
    return {
        "step": manifest["step"],
        "steps": place.steps(),
        "metrics": manifest["metrics"],
        "params": {k: {"shape": tuple(v["shape"]), "dtype": v["dtype"]} for k, v in params.items()},
    }


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps for which a run folder has a whole checkpoint, ascending."""
    return _checkpoints(folder).steps()


def has_any(folder: str | os.PathLike) -> bool:
    """Whether a run folder has a checkpoint, even a corrupt one."""
    return _checkpoints(folder).has_any()


def _checkpoints(folder: str | os.PathLike) -> places.Place:
    return places.of(f"{mirror.url_of(folder) or os.fspath(folder)}/checkpoints")


@contextlib.contextmanager
def _find(folder: str | os.PathLike, step: int | None) -> Iterator[Any]:
    """The path of a checkpoint, from its own folder, the checkpoints folder or the run folder.

    Turns Corrupt into CheckpointError.
    """
    place, found = _place_of(folder, step)
    path = place.path(found)
    try:
        yield path
    except format.Corrupt as e:
        others = [s for s in place.steps() if s != found]
        raise CheckpointError(f"{path} is corrupt: {e}; other steps: {others or 'none'}") from e


def _place_of(folder: str | os.PathLike, step: int | None) -> tuple[places.Place, int]:
    """Where the checkpoints are that are meant, and the step of one of them."""
    refuse_other_url(folder)
    url = mirror.url_of(folder)
    path = os.path.abspath(folder) if url is None else url
    parent, _, name = path.rpartition("/")
    if step is None and name.isdecimal():
        place = places.of(parent) if url is None else places.BucketPlace(parent)
        if int(name) in place.steps():
            return place, int(name)
    place = places.of(f"{path}/checkpoints")
    if not (known := place.steps()):
        place = places.of(path)
        known = place.steps()
    if not known:
        raise CheckpointError(f"{path}: no checkpoint here; is it a run folder?")
    if step is not None and step not in known:
        raise CheckpointError(
            f"{place.folder}: no checkpoint of step {step}; available steps: {known}"
        )
    return place, known[-1] if step is None else step


def _from_first(value: int) -> int:
    """The value of process 0, on all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
