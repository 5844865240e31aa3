"""Who writes a run folder in a bucket: an object that its holder renews.

Buckets have no locks. The holder rewrites the object every few seconds; another process that finds it waits until it
has not changed for a minute and then takes it, at once if its holder has died on the same machine. Clocks of
machines are not compared. A holder that was asleep for longer and finds the lease taken ends its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxlm.remote import objects

NAME = ".lock"
# seconds between two renewals, and after which a lease that was not renewed is free
_RENEWED_EVERY = 15.0
_EXPIRES = 60.0
# seconds between two looks at another's lease, and until two that take one at the same time see who was last
_LOOKED_EVERY, _SETTLES = 3.0, 2.0

# of this process
_tokens: set[str] = set()


@contextlib.contextmanager
def held(url: str, report: Callable[[str], object]) -> Iterator[None]:
    """Holds the lease of a run folder.

    Args:
        url: of the folder.
        report: prints a line when there is something to wait for.

    Raises:
        ValueError: another process is writing this run, or the bucket cannot be written.
    """
    path, token = f"{url}/{NAME}", secrets.token_hex(8)
    _take(path, token, report)
    _tokens.add(token)
    stop = threading.Event()
    thread = threading.Thread(target=_renew, args=(path, token, stop), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _tokens.discard(token)
        # without it the next process waits a minute
        with contextlib.suppress(objects.RemoteError):
            if _read(path).get("token") == token:
                objects.remove(path)


def _take(path: str, token: str, report: Callable[[str], object]) -> None:
    if objects.create(path, _body(token, 0)):
        return
    first = _read(path)
    if not _has_died(first):
        folder = path.removesuffix(f"/{NAME}")
        holder = f"process {first.get('pid', '?')} on {str(first.get('host', '?'))[:80]}"
        if first.get("token") in _tokens:
            raise ValueError(f"{folder}: this process is writing this run already")
        report(f"{folder}: {holder} was writing this run; waiting a minute to see whether it ends")
        end = time.monotonic() + _EXPIRES
        while first and time.monotonic() < end:
            time.sleep(_LOOKED_EVERY)
            now = _read(path)
            if now and now != first:
                raise ValueError(f"{folder}: another process is writing this run: {holder}")
            first = now
    if not first:
        # released meanwhile
        return _take(path, token, report)
    objects.write(path, _body(token, 0))
    time.sleep(_SETTLES)
    if _read(path).get("token") != token:
        raise ValueError(f"{path}: another process has just begun to write this run")


def _renew(path: str, token: str, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(_RENEWED_EVERY):
        # a bucket that cannot be reached now is tried again: nobody else reaches it either
        with contextlib.suppress(objects.RemoteError):
            found = _read(path).get("token", token)
            if found != token:
                print(
                    f"error: {path}: another process writes this run now, as this one did not answer for a minute",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)
            beat += 1
            objects.write(path, _body(token, beat))


def _body(token: str, beat: int) -> bytes:
    me = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine()}
    return json.dumps({"token": token, "beat": beat, **me}).encode()


def _read(path: str) -> dict[str, Any]:
    """What the lease says; empty: it is free. One that cannot be read as JSON has an unknown holder."""
    data = objects.read(path)
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unknown": str(data[:80])}


def _has_died(lease: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    pid = lease.get("pid")
    if lease.get("machine") != _machine() or not isinstance(pid, int) or pid < 1:
        return False
    if pid == os.getpid():
        # an earlier process had the same number
        return lease.get("token") not in _tokens
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        # killed, and its parent has not looked yet
        return file.read().rpartition(")")[2].split()[0] == "Z"
    return False


def _machine() -> str:
    """The machine since it was started, and the container: process numbers mean nothing elsewhere."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
