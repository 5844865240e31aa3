"""Several processes as one run: joining at the start, agreeing on when to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxlm.config import DistributedConfig

# What a terminal needs if the progress line, which hides the cursor, is cut off.
SHOW_CURSOR = b"\x1b[?25h"


def join(config: DistributedConfig) -> None:
    """Joins the other processes: as the flags say, or by what SLURM or the TPU's metadata tell.

    Raises:
        ValueError: they cannot be found or do not answer.
    """
    if not config.enable and config.coordinator is None:
        return
    if jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            initialization_timeout=config.timeout,
        )
    except (RuntimeError, ValueError) as e:
        first = str(e).strip().splitlines()[0]
        raise ValueError(
            f"distributed: cannot join the other processes: {first}; give distributed.coordinator, "
            "num_processes and process_id, and check that the coordinator's port is open"
        ) from e


def is_main() -> bool:
    """Whether this is the first process, which alone prints and writes; does not start the backend for a run of one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


class StopRequest:
    """Whether SIGTERM (a preemption) or Ctrl-C has asked this run to save and stop.

    Of one process, by handlers of its own. Of several, by JAX's preemption service, which lets all of them stop at the
    same step when any of them is told to; the two exclude each other.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # by os.write and os._exit: printing may interrupt printing, and an exception that lands in the midst of XLA's
        # compiler crashes the process
        if self.signal is not None:
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)
            os._exit(128 + number)
        self.signal = number
        os.write(2, b"stopping after this step, and saving; a second signal stops at once\n")

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; all processes give the same answer."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as a shell would report it."""
        assert self.signal is not None
        return 128 + self.signal


class Stopped(Exception):
    """A run was told to stop; everything up to `step` is saved."""

    def __init__(self, step: int, exit_code: int, run_dir: str):
        super().__init__(
            f"stopped and saved at step {step}; the same command goes on from there ({run_dir})"
        )
        self.exit_code = exit_code
