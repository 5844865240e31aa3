"""Configures malloc to keep the memory that XLA for CPUs frees.

In each step XLA allocates the step's temporaries as one block and frees it at the end. The GNU C library returns a
block of this size to the system, which zeroes every page of the next one: this takes between a tenth and a third of
the time of a step on a CPU.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys

# constants of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def keep_freed() -> bool:
    """Makes malloc keep freed memory for the next step; returns whether anything was changed.

    Must be called before JAX starts its backend, because the backend's threads must use the single arena. Nothing is
    changed with other C libraries, with an accelerator, or if the environment configures malloc (`MALLOC_*`,
    `GLIBC_TUNABLES`). The memory of the process then stays at its maximum.
    """
    if sys.platform != "linux" or not _on_cpu() or _is_set_up():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # one arena: the arenas of threads cannot grow to such sizes, and would use mmap anyway
    # -1: never trim; the largest positive value would still return blocks of 2 GiB and more
    options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    done = [mallopt(*option) for option in options]
    return all(done)


def _on_cpu() -> bool:
    """Whether JAX will run on the CPU, as far as is known without starting its backend."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return platforms == "cpu" or not (platforms or any(map(glob.glob, _ACCELERATORS)))


def _is_set_up() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
