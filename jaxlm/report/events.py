"""TensorBoard event files."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

# seconds between flushes, each of which waits for the disk
_FLUSH_EVERY = 30.0


class Events:
    """A new event file in the run's folder, which continues those of earlier sessions.

    Written in the calling thread: the thread of tensorboardX's `SummaryWriter` dies when the disk is full, and its
    queue then blocks the run forever; also, two writers created within one second overwrite each other's file.

    Args:
        run_dir: the run's folder.
        start_step: steps done before, 0 for a new run; TensorBoard hides records of later steps in earlier files.
        clock: seconds, for the time between flushes.

    Raises:
        OSError: from every method, if the file cannot be written.
    """

    def __init__(self, run_dir: pathlib.Path, start_step: int, clock: Callable[[], float]):
        # imported here because tensorboardX imports torch if it is installed
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary, self._text = event_pb2, summary_pb2, summary.text
        self._clock, self._flushed = clock, clock()
        suffix = f".{os.getpid()}.{start_step}"
        self._writer = EventsWriter(str(run_dir / "events"), filename_suffix=suffix)
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(start_step + 1 if start_step else 0, session_log=started)
        self._writer.flush()

    def _write(self, step: int, **fields: Any) -> None:
        self._writer.write_event(self._event.Event(wall_time=time.time(), step=step, **fields))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one point per tag."""
        value = self._summary.Summary.Value
        points = [value(tag=tag, simple_value=x) for tag, x in values.items()]
        self._write(step, summary=self._summary.Summary(value=points))
        if self._clock() - self._flushed > _FLUSH_EVERY:
            self._writer.flush()
            self._flushed = self._clock()

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes a text, indented so that TensorBoard does not interpret it as Markdown."""
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        self._write(step, summary=self._text(tag, indented))

    def close(self) -> None:
        """Writes buffered records and closes the file."""
        self._writer.close()
