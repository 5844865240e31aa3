"""Who may write a run in a bucket, and what a mirror sends."""

import contextlib
import json
import os
import threading
import time

import fake_gcs
import pytest

from jaxlm.remote import lease, mirror, objects

pytestmark = fake_gcs.NEEDED

URL = "gs://bucket/run"


@pytest.fixture
def storage():
    storage = fake_gcs.start()
    storage.forget()
    yield storage
    storage.fail = lambda method, path: None


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "_SETTLES", 0.05)
    monkeypatch.setattr(lease, "_EXPIRES", 0.5)
    monkeypatch.setattr(lease, "_LOOKED_EVERY", 0.05)
    monkeypatch.setattr(lease, "_RENEWED_EVERY", 0.05)


def of_another(beat=0, **changes):
    about = {"token": "x", "beat": beat, "host": "far", "pid": 7, "machine": "far"}
    return json.dumps(about | changes).encode()


def test_is_renewed_and_released(storage):
    with lease.held(URL, print):
        first = storage.read("bucket/run/.lock")
        while storage.read("bucket/run/.lock") == first:
            time.sleep(0.01)
        with pytest.raises(ValueError, match="writing this run already"), lease.held(URL, print):
            pass
    assert storage.names() == []


def test_one_that_is_renewed_is_left_alone(storage):
    storage.put("bucket/run/.lock", of_another())
    stop = threading.Event()

    def renew():
        beat = 0
        while not stop.wait(0.1):
            storage.put("bucket/run/.lock", of_another(beat := beat + 1))

    thread = threading.Thread(target=renew)
    thread.start()
    said = []
    refused = pytest.raises(ValueError, match="another process is writing this run: process 7")
    with refused, lease.held(URL, said.append):
        pass
    stop.set()
    thread.join()
    assert "waiting a minute" in said[0]


@pytest.mark.parametrize("old", [of_another(), b"", b"\xff", b"[]", of_another(pid="x")])
def test_one_that_stands_still_is_taken(storage, old):
    storage.put("bucket/run/.lock", old)
    with lease.held(URL, lambda line: None):
        assert json.loads(storage.read("bucket/run/.lock"))["pid"] == os.getpid()


def test_that_of_a_dead_process_of_this_machine_is_taken_at_once(storage):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    # a child that has ended, before and after its parent knows
    for _ in range(2):
        storage.put("bucket/run/.lock", of_another(pid=pid, machine=lease._machine()))
        with lease.held(URL, pytest.fail):
            pass
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_only_what_changed_is_sent_and_the_summary_is_last(storage):
    folder = mirror.of(URL)
    order = []
    with mirror.sending(folder, print):
        (folder / "summary.json").write_text("{}")
        (folder / "metrics.jsonl").write_text("a\n")
        (folder / "config.json.tmp").write_text("half")
        storage.watch = lambda objects: order.append(max(objects, key=lambda n: objects[n][0]))
        mirror.push(folder)
        mirror.push(folder)
        assert order == ["bucket/run/metrics.jsonl", "bucket/run/summary.json"]
        (folder / "summary.json").unlink()
        with (folder / "metrics.jsonl").open("a") as file:
            file.write("b\n")
        mirror.push(folder)
        assert storage.names() == ["bucket/run/metrics.jsonl"]
    storage.watch = lambda objects: None
    assert storage.read("bucket/run/metrics.jsonl") == b"a\nb\n"
    assert mirror.url_of(folder / "checkpoints" / "4") == f"{URL}/checkpoints/4"
    assert mirror.shown(f"{folder}/config.json: no") == f"{URL}/config.json: no"


def test_errors_are_one_line_and_a_model_is_no_run(storage):
    with pytest.raises(ValueError, match="gs://bucket/none: no such folder"):
        mirror.local("gs://bucket/none")
    storage.put("bucket/hf/config.json", b"{}")
    storage.put("bucket/hf/model.safetensors", b"")
    with pytest.raises(ValueError, match="only run folders are read from a bucket"):
        mirror.local("gs://bucket/hf")
    storage.fail = lambda method, path: 403
    with pytest.raises(objects.RemoteError, match="cannot be listed: OSError: Forbidden"):
        mirror.local("gs://bucket/first")
