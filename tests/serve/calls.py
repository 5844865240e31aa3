"""Server processes for tests, and plain requests to them."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import pytest

for needed in ("starlette", "uvicorn", "prometheus_client", "jinja2"):
    pytest.importorskip(needed)

import stub_server  # noqa: E402

from jaxlm.serve import record  # noqa: E402

HERE = pathlib.Path(__file__).parent


@contextlib.contextmanager
def server(script="stub_server.py", **options):
    """A server process: its port, its log so far, and the process."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, HERE / script, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )

        def read_log():
            log.seek(0)
            return log.read()

        try:
            port = process.stdout.readline()
            assert port, read_log()
            yield SimpleNamespace(
                port=int(port), url=f"http://127.0.0.1:{int(port)}", log=read_log, process=process
            )
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


@contextlib.contextmanager
def server_thread(**options):
    """A server in a thread of this process, which starts sooner: its port and its log so far."""
    made, bound = stub_server.build(options)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    record.LOG.addHandler(handler)
    record.LOG.setLevel(logging.INFO)
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(sockets=[bound])))
    thread.start()
    port = bound.getsockname()[1]
    try:
        while not made.started:
            time.sleep(0.005)
        yield SimpleNamespace(
            port=port, url=f"http://127.0.0.1:{port}", log=lambda: "\n".join(lines)
        )
    finally:
        made.should_exit = True
        thread.join(30)
        record.LOG.removeHandler(handler)
        assert not thread.is_alive()


def call(port, path, body=None, *, method=None, headers=(), timeout=60):
    """The answer to one request: status, headers, and the body as JSON or text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        named = dict(headers)
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body)
        if body is not None:
            named.setdefault("content-type", "application/json")
        connection.request(method or ("GET" if body is None else "POST"), path, data, named)
        response = connection.getresponse()
        text = response.read().decode()
        kind = response.getheader("content-type", "")
        value = json.loads(text) if kind.startswith("application/json") and text else text
        return SimpleNamespace(status=response.status, headers=response.headers, body=value)
    finally:
        connection.close()


def events(text):
    """The events of a stream; the last is [DONE]."""
    assert text.endswith("\n\n")
    data = [event.removeprefix("data: ") for event in text.split("\n\n")[:-1]]
    assert data[-1] == "[DONE]"
    return [json.loads(event) for event in data[:-1]]
