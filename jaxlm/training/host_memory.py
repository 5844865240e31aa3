"""What the C library does with memory that XLA for CPUs frees.

At each step XLA asks for the step's temporaries in one piece and frees them at its end. The GNU C library returns a
piece of this size to the system, which hands the next one out page by page, filled with zeros: between a tenth and a
third of a step on a CPU.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys

# names and numbers of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def keep_freed() -> bool:
    """Lets this process keep freed memory for the next step; whether anything was changed.

    Only before JAX has started its backend, whose threads must find the one arena that is then left. Nothing is changed
    with other C libraries, beside an accelerator, or where the environment sets up malloc (`MALLOC_*`,
    `GLIBC_TUNABLES`). The process then holds the largest amount that it needed at any time.
    """
    if sys.platform != "linux" or not _on_cpu() or _is_set_up():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # one arena: those of threads cannot grow to such sizes, and would ask the system anyway
    # -1: never trim; the largest number that fits would still give back pieces of 2 GiB and more
    options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    done = [mallopt(*option) for option in options]
    return all(done)


def _on_cpu() -> bool:
    """Whether JAX will compute on the CPU, as far as can be told without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return platforms == "cpu" or not (platforms or any(map(glob.glob, _ACCELERATORS)))


def _is_set_up() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
