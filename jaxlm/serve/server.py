"""The process: socket, signals and connections around the application."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxlm.serve.limits import Limits
from jaxlm.serve.record import LOG
from jaxlm.serve.worker import Worker

# bytes of a request's headers
_HEADERS = 32 << 10
# seconds between two lines about a warm-up
_EVERY = 15.0


class Stopped(Exception):
    """The server was stopped by a signal, or because the engine failed."""

    def __init__(self, exit_code: int, reason: str):
        super().__init__(reason)
        self.exit_code = exit_code


def bind(host: str, port: int) -> socket.socket:
    """A socket on which nothing is accepted yet, so that a port in use is known before a model is loaded.

    Raises:
        ValueError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as e:
        raise ValueError(f"--host {host} --port {port}: {e}") from e
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as e:
        bound.close()
        raise _unusable(host, port, e) from e
    return bound


def _unusable(host: str, port: int, e: OSError) -> ValueError:
    if e.errno == errno.EADDRINUSE:
        return ValueError(f"port {port} of {host} is in use: choose another with --port")
    if e.errno == errno.EACCES:
        return ValueError(f"port {port} is for root only: choose one above 1023 with --port")
    return ValueError(f"--host {host} --port {port}: {e.strerror}")


class _Protocol(H11Protocol):
    """uvicorn's protocol that closes a connection whose headers do not come, and that can abort one."""

    receive_seconds = 20.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        address = self.client[0] if self.client else "-"
        LOG.info(f"{address} - - 400 {msg!a}")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        """Times the connection from its first byte, or the last answer, to the end of the next headers."""
        waits = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not waits and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif waits and self._timer is None:
            self._timer = self.loop.call_later(self.receive_seconds, self._close)

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server with signals of our own: the first drains, the second stops at once."""

    def __init__(self, config: uvicorn.Config, worker: Worker, say: Callable[[str], None]):
        super().__init__(config)
        self.worker = worker
        self._say = say
        self.listening = threading.Event()
        self.signal: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT while the server runs, if it has the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal stops accepting and finishes what runs; the second ends it."""
        if self.signal is not None:
            # what is cut off fails, and uvicorn would log where each of it was
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
            self.force_exit = True
            return
        self.signal = sig
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the worker, by the lifespan, and listens."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finishes what runs, as long as the time of grace allows."""
        self._say(f"stopping: {self.worker.active} answers are being finished")
        self.worker.drain()
        await super().shutdown(sockets)


def make(
    app: Any,
    worker: Worker,
    limits: Limits,
    *,
    trusted_proxies: str = "",
    ready: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> Server:
    """The server of an application.

    Args:
        trusted_proxies: addresses, with commas between them, whose X-Forwarded-For names the client; *: all.
        ready: called in the worker's thread when the warm-up is over and the server listens.
        say: called with what the person who started the server should read.
    """
    protocol = type("Protocol", (_Protocol,), {"receive_seconds": limits.receive_seconds})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        limit_concurrency=limits.connections,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(limits.grace_seconds)),
        h11_max_incomplete_event_size=_HEADERS,
    )
    server = Server(config, worker, say)

    def failed() -> None:
        server.should_exit = True

    def warm() -> None:
        server.listening.wait(60)
        ready()

    told = time.monotonic()

    def warming(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            say(f"warming up: {done} of {total} shapes are compiled")

    worker.on_failure = failed
    worker.on_warming = warming
    worker.on_ready = warm
    return server


def run(server: Server, bound: socket.socket) -> None:
    """Serves until a signal comes.

    Raises:
        Stopped: always; its exit code is 128 + the signal's number, or 1 if the engine failed.
        ValueError: the port was taken in the meantime.
    """
    # The engine's thread takes Python's lock a few times a step. By default whoever holds it keeps it for 5 ms, and
    # with many streams the event loop always does: steps of a small model took twice as long.
    sys.setswitchinterval(0.0005)
    _raise_file_limit(server.config.limit_concurrency or 0)
    host, port = bound.getsockname()[:2]
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[bound]))
    except OSError as e:
        raise _unusable(host, port, e) from e
    if server.signal is None:
        raise Stopped(1, "the engine failed; the log above has the reason")
    if server.worker.is_alive:
        # it compiles, or was not waited for: Python would abort if it ended beside that thread
        sys.stdout.flush()
        os._exit(128 + server.signal)
    raise Stopped(128 + server.signal, "stopped")


def _raise_file_limit(connections: int) -> None:
    """Lets the process have as many connections as the limit says, where the system allows it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def set_up_log() -> None:
    """One line a request, with the time, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    # it has a line of ours with the address
    handler.addFilter(lambda record: record.msg != "Invalid HTTP request received.")
    for logger, level in ((LOG, logging.INFO), (logging.getLogger("uvicorn"), logging.WARNING)):
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
