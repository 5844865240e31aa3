"""The processes of a run watch each other: when one is lost, the others end within seconds and say which.

JAX notices a lost process by its heartbeats, after minutes, and aborts. Here every process has a connection to
process 0, which the system closes when that process ends in whatever way; process 0 tells the others.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from jax._src import distributed

# where the address of process 0 is found in JAX's coordination service
_KEY = "jaxlm/peers"
# seconds until a host that no longer answers counts as lost: the first probe, and three at this interval
_PROBE = 5
_AFTERWARDS = "the run ends here; the same command resumes it from the newest checkpoint"


class Peers:
    """This process among the others of its run."""

    def __init__(self, leave: Callable[[str], Any]):
        """`leave` ends this process, with what is to be said."""
        self._leave = leave
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        self._is_over = False
        self._name = ""

    def serve(self, count: int) -> int:
        """As process 0: accepts `count` others; returns the port."""
        self._name = f"process 0 on {socket.gethostname()}"
        server = socket.create_server(("", 0), backlog=count)
        threading.Thread(target=self._accept, args=(server, count), daemon=True).start()
        return server.getsockname()[1]

    def connect(self, address: tuple[str, int], index: int) -> None:
        """As another process: connects to process 0.

        Raises:
            OSError: it cannot be reached.
        """
        self._name = f"process {index} on {socket.gethostname()}"
        link = socket.create_connection(address, timeout=30)
        link.settimeout(None)
        link.sendall(f"{self._name}\n".encode())
        self._add(link)
        threading.Thread(target=self._read, args=(link, "process 0"), daemon=True).start()

    def close(self) -> None:
        """The process ends as it should."""
        self._say("bye")

    def fail(self, reason: str) -> None:
        """The process ends by an error, which the others say too."""
        self._say(f"{self._name} failed: {' '.join(reason.split())}")

    def _say(self, line: str) -> bool:
        """Tells the others why this process ends; False: they know already why."""
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
            for link in self._links:
                # that process may be gone
                with contextlib.suppress(OSError):
                    link.sendall(f"{line}\n".encode())
                    link.shutdown(socket.SHUT_WR)
        return True

    def _add(self, link: socket.socket) -> None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("IDLE", _PROBE), ("INTVL", _PROBE), ("CNT", 3)):
            # not on every system
            if (option := getattr(socket, f"TCP_KEEP{name}", None)) is not None:
                link.setsockopt(socket.IPPROTO_TCP, option, value)
        with self._lock:
            self._links.append(link)

    def _accept(self, server: socket.socket, count: int) -> None:
        with server:
            for _ in range(count):
                link, _ = server.accept()
                self._add(link)
                threading.Thread(target=self._read, args=(link, ""), daemon=True).start()

    def _read(self, link: socket.socket, name: str) -> None:
        """Reads what the process at the other end says, until its connection ends."""
        last = ""
        try:
            with link.makefile("r", encoding="utf-8", errors="replace") as lines:
                name = name or lines.readline().strip()
                for line in lines:
                    last = line.strip()
        except OSError:
            last = ""
        line = last or f"{name} was lost"
        if line != "bye" and self._say(line):
            self._leave(f"{line}: {_AFTERWARDS}")


_peers: Peers | None = None


def watch() -> None:
    """Begins to watch the other processes of `jax.distributed`; if process 0 cannot be reached, prints a warning."""
    global _peers
    state: Any = distributed.global_state
    if _peers is not None or state.num_processes < 2:
        return
    _peers = Peers(_leave)
    if state.process_id == 0:
        port = _peers.serve(state.num_processes - 1)
        host = state.coordinator_address.rpartition(":")[0]
        state.client.key_value_set(_KEY, f"{host}:{port}")
    else:
        host, _, port = state.client.blocking_key_value_get(_KEY, 60_000).rpartition(":")
        try:
            _peers.connect((host.strip("[]"), int(port)), state.process_id)
        except OSError as e:
            sys.stderr.write(
                f"warning: process {state.process_id} cannot reach port {port} of process 0 ({e.strerror or e}): lost "
                "processes are noticed late\n"
            )
            _peers = None
            return
    atexit.register(_peers.close)


def is_watching() -> bool:
    """Whether this is one of several processes."""
    return _peers is not None


def settle(seconds: float = 2.0) -> None:
    """Before an error is reported: it may follow from a lost process, of which this process will hear, and end."""
    time.sleep(seconds)


def fail(reason: str, code: int = 1) -> None:
    """Ends this process because of an error, and with it the others; without others it does nothing."""
    if _peers is None:
        return
    if threading.current_thread() is not threading.main_thread():
        sys.stderr.write(f"error: {reason}\n")
    _peers.fail(reason)
    sys.stdout.flush()
    sys.stderr.flush()
    # without JAX's own end, which waits for the others
    os._exit(code)


def _leave(line: str) -> None:
    # the main thread may be anywhere
    os.write(2, f"error: {line}\n".encode())
    os._exit(1)
