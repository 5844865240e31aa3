"""The server process: signals, ports, warm-up, and an engine that fails."""

import contextlib
import http.client
import json
import signal
import socket
import threading
import time

import calls
import pytest

from jaxlm.serve import keys, server
from jaxlm.serve.limits import Limits

pytestmark = pytest.mark.slow

BODY = dict(prompt="a", temperature=0, logit_bias={"4": -100})


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_sigterm_finishes_what_runs_and_refuses_what_waits():
    # two slots: the third and fourth answers wait
    with calls.server(slots=2, seconds=0.02) as running:
        answers = {}

        def ask(name, **body):
            answers[name] = calls.call(running.port, "/v1/completions", BODY | body)

        threads = [in_thread(lambda: ask("long", max_tokens=60))]
        usage = {"include_usage": True}
        threads += [
            in_thread(lambda: ask("stream", max_tokens=60, stream=True, stream_options=usage))
        ]
        health = lambda: calls.call(running.port, "/health").body
        while health()["running"] < 2:
            time.sleep(0.01)
        threads += [in_thread(lambda: ask("waits", max_tokens=60))]
        while health()["waiting"] < 1:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert running.process.wait(30) == 128 + signal.SIGTERM
        assert answers["long"].status == 200
        assert answers["long"].body["usage"]["completion_tokens"] == 60
        assert calls.events(answers["stream"].body)[-1]["usage"]["completion_tokens"] == 60
        assert answers["waits"].status == 503
        assert answers["waits"].headers["retry-after"] == "5"
        with pytest.raises(ConnectionError):
            calls.call(running.port, "/health")
        assert "stopping: 2 answers are being finished" in running.log()
        assert "Traceback" not in running.log()


def test_a_second_signal_and_the_end_of_grace_stop_at_once():
    for grace, signals in ((60, 2), (1, 1)):
        with calls.server(seconds=0.05, limits=dict(grace_seconds=grace)) as running:
            done = []

            def ask(port=running.port, done=done):
                with contextlib.suppress(Exception):
                    done.append(calls.call(port, "/v1/completions", BODY | dict(max_tokens=2000)))

            thread = in_thread(ask)
            with socket.create_connection(("127.0.0.1", running.port)) as garbage:
                garbage.sendall(b"GARBAGE\r\n\r\n")
                assert garbage.recv(100).startswith(b"HTTP/1.1 400")
            while calls.call(running.port, "/health").body["running"] < 1:
                time.sleep(0.01)
            for i in range(signals):
                running.process.send_signal(signal.SIGINT)
                time.sleep(0.3 * (i + 1 < signals))
            assert running.process.wait(20) == 128 + signal.SIGINT
            thread.join()
            assert not done or done[0].status != 200
            log = running.log()
            assert "Traceback" not in log
            assert log.count("127.0.0.1 - - 400 'Invalid HTTP request received.'") == 1
            assert log.count("Invalid HTTP") == 1
            assert "/v1/completions 499" in log and "the server was stopped" in log


def test_health_says_when_the_warm_up_is_over():
    with calls.server_thread(seconds=0.6) as running:
        early = calls.call(running.port, "/health")
        assert (early.status, early.body["status"]) == (503, "warming up")
        assert early.body["warm_up"] == dict(compiled=1, shapes=3)
        # a request that comes too early waits
        assert calls.call(running.port, "/v1/completions", BODY | dict(max_tokens=1)).status == 200
        late = calls.call(running.port, "/health")
        assert (late.status, late.body["status"]) == (200, "ok")
        assert "warm_up" not in late.body


def test_a_failed_engine_ends_every_request_and_the_process():
    with calls.server(seconds=0.02) as running:
        answers = []

        def ask(prompt):
            body = BODY | dict(prompt=prompt, max_tokens=2000)
            answers.append(calls.call(running.port, "/v1/completions", body))

        thread = in_thread(lambda: ask("a"))
        body = json.dumps(BODY | dict(max_tokens=2000, stream=True))
        stream = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        stream.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        response = stream.getresponse()
        assert response.readline().startswith(b"data: {")
        ask("BREAK")
        thread.join()
        assert [answer.status for answer in answers] == [500, 500]
        *_, last = calls.events("data: " + response.read().decode().partition("data: ")[2])
        assert last["error"]["type"] == "server_error"
        stream.close()
        # so that whoever watches it starts it again
        assert running.process.wait(20) == 1
        assert "out of memory" in running.log()


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is in use"):
            server.bind("127.0.0.1", port)
    for host in ("256.0.0.1", "no.such.host.invalid", "8.8.8.8"):
        with pytest.raises(ValueError, match=f"--host {host} --port"):
            server.bind(host, 0)


def test_keys_are_read_from_a_file_and_the_environment(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst-key-1  # of ann\n\nsecond-key\n")
    accepted = keys.read_keys(path, "third-key,fourth-key")
    names = {
        accepted.client(f"Bearer {key}", "-")
        for key in ("first-key-1", "second-key", "third-key", "fourth-key")
    }
    assert len(names) == 4
    assert not keys.read_keys(None, None)
    path.write_text("# nothing\n")
    for file, environment, message in (
        (path, None, "has no API key"),
        (None, "", "JAXLM_API_KEYS has no API key"),
        (None, "short", "at least 8 ASCII characters"),
        (tmp_path / "none", None, "No such file"),
    ):
        with pytest.raises(ValueError, match=message):
            keys.read_keys(file, environment)


def test_limits_are_checked():
    with pytest.raises(ValueError, match=r"limits\.queue=0 must be above 0"):
        Limits(queue=0)
