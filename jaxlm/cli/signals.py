"""Ctrl-C before a command has anything to save: it ends at once, wherever Python is.

Python delivers a signal between two of its instructions, and what it raises can be lost or do harm: in the middle of an
import it crashes JAX, and in a callback of the garbage collector it is swallowed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

# of the callback that JAX gives to the garbage collector
_CALLBACK = "_xla_gc_callback"


def raise_safely() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt, but end the process at once while a module is imported.

    A handler that the caller has set stays.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave(number)
        if frame.f_code.co_name == _CALLBACK:
            # the exception would be swallowed: again when it has returned
            threading.Timer(0.02, os.kill, (os.getpid(), number)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def leave(number: int) -> None:
    """Ends the process as a signal would, without what the interpreter does at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (RuntimeError, OSError, ValueError):
            # it was being written to, or nobody reads it
            continue
    os._exit(128 + number)
