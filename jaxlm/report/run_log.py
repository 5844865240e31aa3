"""What a run writes while it trains: metrics for tools, TensorBoard, and a progress line for people.

Nothing is computed here. What is shown before the first step is made in `overview`, the plots in `curves`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from jaxlm.report.events import Events
from jaxlm.report.formats import count, duration, number
from jaxlm.report.metrics_file import read_metrics

Clock = Callable[[], float]


class Throughput:
    """Tokens a second over the last steps, without the time spent in `paused()` on other things than training."""

    def __init__(self, tokens_per_step: int, *, window: int = 50, clock: Clock = time.monotonic):
        self._tokens_per_step = tokens_per_step
        self._clock = clock
        self._paused = 0.0
        # when the last steps ended, with the pauses taken out
        self._ends: deque[float] = deque(maxlen=window + 1)

    def step(self) -> None:
        """Tells that a step has ended; the first one only starts the clock."""
        self._ends.append(self._clock() - self._paused)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens inside: evaluations, checkpoints, samples."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    @property
    def tokens_per_second(self) -> float | None:
        """The running figure; None before the second step."""
        if len(self._ends) < 2 or self._ends[-1] <= self._ends[0]:
            return None
        steps = len(self._ends) - 1
        return steps * self._tokens_per_step / (self._ends[-1] - self._ends[0])


class RunLog:
    """Everything that a run writes about itself; on processes other than the main one, nothing.

    A disk that cannot be written gives a warning, not the end of the run.

    Args:
        run_dir: the run's folder, made if it is missing.
        total_steps: of the whole run.
        is_main: whether this process writes.
        start_step: steps done before; what the files hold of later steps, from before a crash, is cut off or hidden.
            0: a new run, of which nothing is there yet.
        console: where the progress goes; standard output if not given.
        clock: seconds, for the time that is left.
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
    ):
        self.run_dir = pathlib.Path(run_dir)
        self.metrics_path = self.run_dir / "metrics.jsonl"
        self.total_steps = total_steps
        self.is_main = is_main
        self._clock = clock
        # step and time of the first report
        self._first: tuple[int, float] | None = None
        if not is_main:
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._console = console or Console()
        self._live = _live(self._console, total_steps, start_step)
        self._metrics = _open_metrics(self.metrics_path, start_step)
        self._events: Events | None = Events(self.run_dir, start_step, clock)

    def step(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Records training metrics after `step` steps and shows them; those that are None are left out.

        loss, learning_rate, grad_norm, tokens_per_second and mfu have places of their own in the progress line.
        """
        if not self.is_main:
            return
        known = _plain(metrics)
        self._record(step, known, tag="train/")
        line = _progress_line(known, self._seconds_left(step))
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
        """Prints a generated text and gives it to TensorBoard."""
        if not self.is_main:
            return
        self._to_events(lambda events: events.text(step, "sample", text))
        self.note(f"--- sample at step {step}\n{text}\n---")

    def finish(self, summary: dict[str, Any]) -> None:
        """Draws curves.png and writes summary.json, whose presence says that the run has ended."""
        if not self.is_main:
            return
        from jaxlm.report.curves import curves

        self._stop_live()
        try:
            curves(self.metrics_path, self.run_dir / "curves.png")
        finally:
            text = json.dumps(_strict(summary), indent=2, ensure_ascii=False, allow_nan=False)
            _write_atomically(self.run_dir / "summary.json", text + "\n")

    def close(self) -> None:
        """Ends the progress line and closes the files; may be called twice."""
        if not self.is_main:
            return
        self._stop_live()
        try:
            self._metrics.close()
        except OSError as e:
            self.note(f"warning: {self.metrics_path}: its end could not be written: {e.strerror}")
        self._to_events(lambda events: events.close())
        self._events = None

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _seconds_left(self, step: int) -> float | None:
        """By the mean time of a step since the first report, evaluations and checkpoints included."""
        now = self._clock()
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
            return None
        first_step, start = self._first
        return (now - start) / (step - first_step) * max(self.total_steps - step, 0)

    def _record(self, step: int, metrics: dict[str, float], tag: str = "") -> None:
        """Appends a line of JSON, which has no NaN: such a value is null there and named under "nonfinite"."""
        row: dict[str, Any] = {"step": int(step), **_strict(metrics)}
        if bad := {k: str(v) for k, v in metrics.items() if not math.isfinite(v)}:
            row["nonfinite"] = bad
        try:
            self._metrics.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._metrics.flush()
        except OSError as e:
            # what was not written stays in the buffer and goes out with the next line
            self.note(f"warning: {self.metrics_path}: {e.strerror}; training goes on")
        scalars = {tag + name: value for name, value in metrics.items()}
        self._to_events(lambda events: events.scalars(step, scalars))

    def _to_events(self, write: Callable[[Events], None]) -> None:
        if self._events is None:
            return
        try:
            write(self._events)
        except OSError as e:
            self.note(f"warning: no more TensorBoard events: {e.strerror}; training goes on")
            self._events = None


def read_summary(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The summary.json of a run that has ended.

    Raises:
        ValueError: there is none.
    """
    path = pathlib.Path(run_dir) / "summary.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the run has not ended")
    return json.loads(path.read_text(encoding="utf-8"))


def _open_metrics(path: pathlib.Path, start_step: int) -> BinaryIO:
    """metrics.jsonl, ready to go on after `start_step`."""
    if not (start_step and path.exists()):
        return open(path, "wb")
    rows = [row for row in read_metrics(path) if row["step"] <= start_step]
    _write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return open(path, "ab")


def _write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file that nobody sees half-written."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _plain(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Metrics that are known, as Python numbers."""
    known = {name: value for name, value in metrics.items() if value is not None}
    return {name: x if isinstance(x, int) else float(x) for name, x in known.items()}


def _strict(value: Any) -> Any:
    """The value with None for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _live(console: Console, total_steps: int, start_step: int) -> Progress | None:
    """The progress line of a terminal; None where there is none."""
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    bar = [BarColumn(bar_width=16)] if console.width >= 110 else []
    progress = Progress(
        TextColumn("[bold]step {task.completed}/{task.total}"),
        *bar,
        TextColumn("{task.fields[line]}", markup=False),
        console=console,
    )
    progress.add_task("", total=total_steps, completed=start_step, line="")
    return progress


def _progress_line(metrics: dict[str, float], seconds_left: float | None) -> str:
    """loss 2.314  lr 9.8e-04  grad 0.71  41.2k tok/s  mfu 12.3%  eta 1m12s, then other metrics by name."""
    formats: dict[str, Callable[[float], str]] = {
        "loss": lambda x: f"loss {number(x)}",
        "learning_rate": lambda x: f"lr {x:.1e}",
        "grad_norm": lambda x: f"grad {number(x, 2)}",
        "tokens_per_second": lambda x: f"{count(x)} tok/s",
        "mfu": lambda x: f"mfu {x:.1%}",
    }
    parts = [form(metrics[name]) for name, form in formats.items() if name in metrics]
    if seconds_left is not None:
        parts.append(f"eta {duration(seconds_left)}")
    # a count of zero, of skipped steps for one, is no news
    rest = {
        name: x for name, x in metrics.items() if name not in formats and (x or type(x) is float)
    }
    return "  ".join([*parts, *(f"{name} {number(x)}" for name, x in rest.items())])
