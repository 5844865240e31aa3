"""The output of a run during training: metrics.jsonl, TensorBoard events and a progress line.

Nothing is computed here. `overview` prints what precedes the first step, `curves` draws the plots.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from rich.console import Console

from jaxlm.config import json_text
from jaxlm.report.events import Events
from jaxlm.report.formats import number
from jaxlm.report.metrics_file import read_metrics
from jaxlm.report.progress_line import live_progress, progress_line
from jaxlm.report.trackers import Tracker

Clock = Callable[[], float]


class RunLog:
    """Writes the metrics, samples and progress of a run; does nothing on processes other than the main one.

    A write error gives a warning and does not stop the run.

    Args:
        run_dir: the run's folder, created if missing.
        total_steps: of the whole run.
        is_main: whether this process writes.
        start_step: steps done before; records of later steps, written before a crash, are removed or hidden. 0: a new
            run.
        console: where progress is printed; default: standard output.
        clock: seconds, for the estimated time left.
        trackers: where metrics are sent besides, by name.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike,
        *,
        total_steps: int,
        is_main: bool,
        start_step: int = 0,
        console: Console | None = None,
        clock: Clock = time.monotonic,
        trackers: Mapping[str, Tracker] = types.MappingProxyType({}),
    ):
        self.run_dir = pathlib.Path(run_dir)
        self.metrics_path = self.run_dir / "metrics.jsonl"
        self.total_steps = total_steps
        self.is_main = is_main
        self._clock = clock
        self._trackers, self._has_finished = dict(trackers), False
        # step and time of the first report
        self._first: tuple[int, float] | None = None
        if not is_main:
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        # of a run that had ended and goes on with more steps
        (self.run_dir / "summary.json").unlink(missing_ok=True)
        self._console = console or Console()
        self._live = live_progress(self._console, total_steps, start_step)
        self._metrics = _open_metrics(self.metrics_path, start_step)
        self._events: Events | None = Events(self.run_dir, start_step, clock)

    def step(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Records and shows training metrics after `step` steps; metrics that are None are skipped.

        loss, learning_rate, grad_norm, tokens_per_second and mfu have fixed fields in the progress line.
        """
        if not self.is_main:
            return
        known = _plain(metrics)
        self._record(step, known, tag="train/")
        line = progress_line(known, self._seconds_left(step))
        if self._live is None:
            self.note(f"step {step}/{self.total_steps}  {line}")
        else:
            self._live.start()
            self._live.update(self._live.task_ids[0], completed=step, line=line)

    def evaluation(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Records validation metrics as eval/<name> and prints them."""
        if not self.is_main:
            return
        known = _plain(metrics)
        self._record(step, {f"eval/{name}": value for name, value in known.items()})
        shown = "  ".join(f"{name} {number(value)}" for name, value in known.items())
        self.note(f"eval {step}/{self.total_steps}  {shown}")

    def note(self, text: str) -> None:
        """Prints a line above the progress line."""
        if self.is_main:
            self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def sample(self, step: int, text: str) -> None:
        """Prints a generated text and writes it to TensorBoard."""
        if not self.is_main:
            return
        self._to_events(lambda events: events.text(step, "sample", text))
        self._to_trackers(lambda tracker: tracker.text(step, "sample", text))
        self.note(f"--- sample at step {step}\n{text}\n---")

    def finish(self, summary: dict[str, Any]) -> None:
        """Draws curves.png and writes summary.json, whose presence indicates that the run has ended."""
        if not self.is_main:
            return
        from jaxlm.report.curves import curves

        self._stop_live()
        try:
            curves(self.metrics_path, self.run_dir / "curves.png")
        finally:
            text = json.dumps(strict(summary), indent=2, ensure_ascii=False, allow_nan=False)
            _write_atomically(self.run_dir / "summary.json", text + "\n")
        self._to_trackers(lambda tracker: tracker.summary(strict(summary)))
        self._has_finished = True

    def close(self) -> None:
        """Ends the progress line and closes the files; may be called twice."""
        if not self.is_main:
            return
        self._stop_live()
        try:
            self._metrics.close()
        except OSError as e:
            self.note(
                f"warning: {self.metrics_path}: the last lines could not be written: {e.strerror}"
            )
        self._to_events(lambda events: events.close())
        self._events = None
        self._to_trackers(lambda tracker: tracker.close(failed=not self._has_finished))
        self._trackers = {}

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _seconds_left(self, step: int) -> float | None:
        """Estimated from the mean time of a step since the first report, evaluations and checkpoints included."""
        now = self._clock()
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
            return None
        first_step, start = self._first
        return (now - start) / (step - first_step) * max(self.total_steps - step, 0)

    def _record(self, step: int, metrics: dict[str, float], tag: str = "") -> None:
        """Appends a line of JSON; NaN and infinity, which JSON lacks, become null and are listed in "nonfinite"."""
        row: dict[str, Any] = {"step": int(step), **strict(metrics)}
        if bad := {k: str(v) for k, v in metrics.items() if not math.isfinite(v)}:
            row["nonfinite"] = bad
        try:
            self._metrics.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._metrics.flush()
        except OSError as e:
            # unwritten data stays in the buffer and is written with the next line
            self.note(f"warning: {self.metrics_path}: {e.strerror}; training continues")
        scalars = {tag + name: value for name, value in metrics.items()}
        self._to_events(lambda events: events.scalars(step, scalars))
        self._to_trackers(lambda tracker: tracker.scalars(step, scalars))

    def _to_events(self, write: Callable[[Events], None]) -> None:
        if self._events is None:
            return
        try:
            write(self._events)
        except OSError as e:
            self.note(f"warning: no more TensorBoard events: {e.strerror}; training continues")
            self._events = None

    def _to_trackers(self, write: Callable[[Tracker], None]) -> None:
        """Sends something to all trackers; one that fails gets nothing more."""
        for name, tracker in list(self._trackers.items()):
            try:
                write(tracker)
            except Exception as e:  # each package has types of its own
                reason = " ".join(f"{type(e).__name__}: {e}".split())
                self.note(f"warning: nothing more is sent to {name}: {reason}; training continues")
                del self._trackers[name]


def read_summary(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The summary.json of a run that has ended.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = pathlib.Path(run_dir) / "summary.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the run has not ended")
    try:
        return json_text.read_object(path)
    except ValueError as e:
        raise ValueError(f"{e}: delete the file, and run the same command") from e


def _open_metrics(path: pathlib.Path, start_step: int) -> BinaryIO:
    """metrics.jsonl, opened to continue after `start_step`."""
    if not (start_step and path.exists()):
        return open(path, "wb")
    rows = [row for row in read_metrics(path) if row["step"] <= start_step]
    _write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return open(path, "ab")


def _write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file so that readers never see it incomplete."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _plain(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are not None, as Python numbers."""
    known = {name: value for name, value in metrics.items() if value is not None}
    return {name: x if isinstance(x, int) else float(x) for name, x in known.items()}


def strict(value: Any) -> Any:
    """The value with None in place of numbers that JSON cannot represent."""
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
