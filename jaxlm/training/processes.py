"""Several processes as one run: how they join at the start, and agree on when to stop."""

from __future__ import annotations

import os
import pathlib
import secrets
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.config import DistributedConfig
from jaxlm.remote import mirror, objects
from jaxlm.training import peers

# besides SIGTERM
_STOPS = (signal.SIGINT, signal.SIGHUP)
# Shows the cursor of the terminal again, which the progress line hides.
SHOW_CURSOR = b"\x1b[?25h"


def join(config: DistributedConfig) -> None:
    """Joins the other processes, by the options given or by the metadata of SLURM or the TPU.

    Raises:
        ValueError: the other processes cannot be reached.
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
    peers.watch()


def is_main() -> bool:
    """Whether this is process 0, the only one that prints and writes; does not start the backend in a single-process
    run."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


# seconds until a network file system shows a file that another machine has written
_SHOWN_AFTER = 30.0


def check_shared(folder: pathlib.Path, is_ready: bool) -> None:
    """Checks that all processes see the folder that process 0 has made, so that none writes to a disk of its own.

    All processes call it. `is_ready` says on process 0 whether it has made the folder, and is ignored on others.

    Raises:
        ValueError: on all processes: it could not be made, or one of them does not see it.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    number = multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31)))
    mark = _Mark(folder, f".shared-{int(number):x}")
    if is_main() and is_ready:
        mark.make()
    # nobody looks for the file before it is there: some file systems remember that it was not
    if not multihost_utils.broadcast_one_to_all(np.bool_(is_ready)):
        if is_main():
            return  # which knows the reason
        raise ValueError(f"{folder}: process 0 cannot use it as a run folder")
    end = time.monotonic() + _SHOWN_AFTER
    while not (seen := mark.is_there()) and time.monotonic() < end:
        time.sleep(0.2)
    all_seen = np.ravel(multihost_utils.process_allgather(np.bool_(seen)))
    if is_main():
        mark.remove()
    if not all_seen.all():
        blind = ", ".join(map(str, np.flatnonzero(~all_seen)))
        raise ValueError(
            f"{folder}: not one folder for all processes: what process 0 writes there is not seen by {blind}, which "
            "would write to a disk of its own; name an absolute path on a file system that all share"
        )


class _Mark:
    """A file in a folder, or in the folder of a bucket that it is a mirror of."""

    def __init__(self, folder: pathlib.Path, name: str):
        url = mirror.url_of(folder)
        self.path, self.url = folder / name, None if url is None else f"{url}/{name}"

    def make(self) -> None:
        if self.url is None:
            self.path.touch()
        else:
            objects.write(self.url, b"")

    def is_there(self) -> bool:
        return self.path.exists() if self.url is None else objects.size(self.url) is not None

    def remove(self) -> None:
        if self.url is None:
            self.path.unlink(missing_ok=True)
        else:
            objects.remove(self.url)


class StopRequest:
    """Whether SIGTERM (a preemption), SIGHUP (a closed terminal) or Ctrl-C requested this run to save and stop.

    A single process has a thread that is woken by signals, so that they are noticed while the main thread compiles.
    Before the first step there is nothing to save, and a signal ends the process at once. Several processes use JAX's
    preemption service, with which all stop at the same step when any of them gets a signal; the two cannot be combined.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._has_steps = False
        self._pipe: tuple[int, int] | None = None
        self._previous_fd = -1

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self
        alone = jax.process_count() == 1
        if alone:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._previous_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
        # of several processes SIGTERM belongs to the preemption service
        numbers = (*_STOPS, signal.SIGTERM) if alone else _STOPS
        for number in numbers:
            handler = _woken if alone else self._pass_on
            self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_fd)
            # the thread reads the end of the pipe
            os.close(self._pipe[1])
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _watch(self, pipe: int) -> None:
        """Reads the numbers of the signals that arrive, until the pipe is closed."""
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number in self._previous:
                    self._note(number)
        os.close(pipe)

    def _note(self, number: int) -> None:
        # with os.write and os._exit, because the main thread may be anywhere
        if self.signal is not None or not self._has_steps:
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)
            if self.signal is None:
                os.write(2, b"stopped before a step was done; there is nothing to save\n")
            os._exit(128 + number)
        self.signal = number
        os.write(2, b"stopping after this step, and saving; a second signal stops immediately\n")

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step, which is done; all processes give the same answer."""
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                self.signal = signal.SIGTERM
                return True
            return False
        self._has_steps = True
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as a shell would report it."""
        assert self.signal is not None
        return 128 + self.signal


def _woken(number: int, frame: FrameType | None) -> None:
    """The signal has reached `StopRequest._watch`."""


class Stopped(Exception):
    """A run was stopped by SIGTERM or Ctrl-C; everything up to `step` is saved.

    `pretrain` and `finetune` raise it after they have saved. It is no ValueError, because nothing is wrong: a script
    that goes on after the run catches it, and others end with its exit code, as the commands do:

        try:
            summary = pretrain(config)
        except Stopped as stop:
            sys.exit(stop.exit_code)

    Attributes:
        step: the last step that was done; the same call resumes after it.
        exit_code: 143 after SIGTERM, 130 after Ctrl-C.
        run_dir: folder of the run.
    """

    def __init__(self, step: int, exit_code: int, run_dir: str):
        super().__init__(
            f"stopped and saved at step {step}; the same command resumes from there ({run_dir})"
        )
        self.step, self.exit_code, self.run_dir = step, exit_code, run_dir
