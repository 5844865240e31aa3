"""The processes of a run watch each other: when one is lost, the others end within seconds and say which.

Over the same connections they tell process 0 which step they are in (`heartbeat`).

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
# begins a line that is for `listen`; all others say why a process ends
_MARK = "~"
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
        # on process 0: the others by index
        self.names: dict[int, str] = {}
        # takes the index of a process and what it tells
        self.listener: Callable[[int, str], Any] = lambda index, line: None

    def serve(self, count: int) -> int:
        """As process 0: accepts `count` others; returns the port."""
        self._name = self.names[0] = f"process 0 on {socket.gethostname()}"
        server = socket.create_server(("", 0), backlog=count)
        threading.Thread(target=self._accept, args=(server, count), daemon=True).start()
        return server.getsockname()[1]

    def connect(self, address: tuple[str, int], index: int) -> None:
        """As another process: connects to process 0.

        Raises:
            OSError: it cannot be reached.
        """
        self._name = self.names[index] = f"process {index} on {socket.gethostname()}"
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

    def tell(self, line: str) -> None:
        """Tells process 0 something that does not end this process."""
        with self._lock, contextlib.suppress(OSError):
            if not self._is_over:
                self._links[0].sendall(f"{_MARK}{line}\n".encode())

    def end(self, line: str) -> None:
        """Ends all processes with a line."""
        if self._say(line):
            self._leave(f"{line}: {_AFTERWARDS}")

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
                index = int(name.split()[1])
                self.names[index] = name
                for line in lines:
                    if line.startswith(_MARK):
                        self.listener(index, line[len(_MARK) :].strip())
                    else:
                        last = line.strip()
        except OSError:
            last = ""
        line = last or f"{name} was lost"
        if line != "bye":
            self.end(line)


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


def index() -> int:
    """The index of this process; 0 if it is the only one."""
    return distributed.global_state.process_id or 0 if _peers is not None else 0


def names() -> list[str]:
    """All processes with their hosts on process 0; on others this one, and the rest without hosts."""
    if _peers is None:
        return [f"process 0 on {socket.gethostname()}"]
    count: int = distributed.global_state.num_processes  # type: ignore[assignment]
    order = sorted(range(count), key=lambda i: i != index())
    return [_peers.names.get(i, f"process {i}") for i in order]


def listen(listener: Callable[[int, str], Any]) -> None:
    """On process 0: what others `tell` from now on goes to `listener`, with the index of the process."""
    if _peers is not None:
        _peers.listener = listener


def tell(line: str) -> None:
    """Tells process 0 a line."""
    if _peers is not None:
        _peers.tell(line)


def end(line: str) -> None:
    """Ends all processes, each with this line."""
    if _peers is not None:
        _peers.end(line)


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
