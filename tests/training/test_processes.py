"""Two processes with two CPU devices each are one run with the losses of one process; signals stop a process."""

import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from runs import as_config_file, command, losses, small_runs, tiny, write_corpus

from jaxlm.config import DistributedConfig, MeshConfig
from jaxlm.run.pretrain import pretrain
from jaxlm.training import processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_corpus(folder)
    return folder


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def finish(processes) -> list[tuple[int, str, str]]:
    outputs = [p.communicate(timeout=600) for p in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs)]


@pytest.mark.slow
# each process has half of the rows, or half of every row
@pytest.mark.parametrize("axes", [dict(data=2, fsdp=2), dict(data=1, context=4)], ids=str)
def test_two_processes_give_the_losses_of_one(folder, axes):
    mesh, one, other = MeshConfig(**axes), *(f"{n}-{'-'.join(axes)}" for n in ("one", "two"))
    with small_runs():
        pretrain(tiny(folder, one, steps=6, mesh=mesh))
    two = as_config_file(tiny(folder, other, steps=6, mesh=mesh), folder / f"{other}.py")
    address = f"localhost:{free_port()}"
    flags = ["--distributed.coordinator", address, "--distributed.num-processes", "2"]
    pair = [command(two, *flags, "--distributed.process-id", str(i), devices=2) for i in range(2)]
    for code, _, errors in finish(pair):
        assert code == 0, errors
    expected, found = losses(folder / one), losses(folder / other)
    assert sorted(found) == sorted(expected) == list(range(1, 7))
    np.testing.assert_allclose(
        [found[s] for s in found], [expected[s] for s in expected], rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_processes_with_other_folders_are_refused(folder, tmp_path):
    # a relative path on two machines, or in two working folders: each would write checkpoints of its own
    config = as_config_file(tiny(folder, steps=2, mesh=MeshConfig(data=2)), tmp_path / "two.py")
    script = f"""
import sys
from jaxlm.training import processes
processes._SHOWN_AFTER = 1.0
from jaxlm.cli.main import main
sys.exit(main(["train", {str(config)!r}, "--run-dir", "run", *sys.argv[1:]]))
"""
    flags = ["--distributed.coordinator", f"localhost:{free_port()}", "--distributed.num-processes"]
    pair = []
    for i in range(2):
        own = tmp_path / str(i)
        own.mkdir()
        pair.append(
            subprocess.Popen(
                [sys.executable, "-c", script, *flags, "2", "--distributed.process-id", str(i)],
                cwd=own,
                env=os.environ
                | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    codes = []
    for i, (code, _, errors) in enumerate(finish(pair)):
        codes.append(code)
        assert "not one folder for all processes" in errors
        assert "is not seen by 1, which" in errors
        assert not os.listdir(tmp_path / str(i))
    # the first to say it may end the other, which says it then, too
    assert sorted(codes) in ([1, 2], [2, 2])


def test_incomplete_distributed_options_are_rejected():
    with pytest.raises(ValueError, match="go together"):
        DistributedConfig(coordinator="localhost:1234")


SIGNALS = """
import os, signal, sys, time
from jaxlm.training.processes import StopRequest
with StopRequest() as stop:
    def send(name):
        os.kill(os.getpid(), getattr(signal, name))
        while stop.signal is None:
            time.sleep(0.001)
"""


def run_script(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def test_a_second_signal_stops_immediately():
    run = run_script(
        SIGNALS
        + """
    assert not stop.reached(1)
    send("SIGHUP")
    assert stop.reached(2) and stop.exit_code == 129
    print("finishing the step", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    # as in a compilation, where no handler in Python runs
    time.sleep(60)
"""
    )
    assert run.returncode == 128 + signal.SIGTERM, run.stderr
    assert run.stdout == "finishing the step\n"
    assert "stopping after this step, and saving; a second signal stops immediately\n" in run.stderr


def test_a_signal_before_the_first_step_stops_immediately():
    run = run_script(SIGNALS + '    send("SIGINT")\n')
    assert run.returncode == 128 + signal.SIGINT, run.stderr
    assert "there is nothing to save" in run.stderr


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with processes.StopRequest():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    after = [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_stopped_run_says_where_it_can_go_on():
    stopped = processes.Stopped(7, 143, "runs/x")
    assert (stopped.step, stopped.exit_code, stopped.run_dir) == (7, 143, "runs/x")
    assert "step 7" in str(stopped)
