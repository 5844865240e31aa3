"""Processes that hang: which is named, when nothing is said, and a run of two processes that ends."""

import contextlib
import re
import subprocess
import sys

import pytest
from runs import REPOSITORY, as_config_file, tiny, write_corpus
from test_pace import Clock
from test_processes import free_port

from jaxlm.config import DistributedConfig
from jaxlm.training import peers
from jaxlm.training.heartbeat import RESTS, Heartbeat

NAMES = [f"process {i} on host-{i}" for i in range(3)]


def heartbeat(*steps, waited=0.0, **changes):
    """A heartbeat of three processes that began these steps, and its clock."""
    clock = Clock()
    config = DistributedConfig(**{"hang_minutes": 2.0, "hang_factor": 30.0, **changes})
    beats = Heartbeat(config, NAMES, clock=clock)
    for index, step in enumerate(steps):
        beats.heard(index, step, waited * index)
    return beats, clock


def test_the_process_that_has_not_begun_the_step_of_the_others_hangs():
    beats, clock = heartbeat(8, 7, 8)
    clock.now += 119
    assert beats.verdict(1.0) is None
    clock.now += 2
    assert beats.verdict(1.0) == (
        "process 1 on host-1 hangs: step 8 has not begun there for 2.0 minutes, where a step takes 1 s"
    )
    beats.heard(1, 8)
    assert beats.verdict(1.0) is None


def test_where_all_have_begun_the_step_no_process_is_blamed():
    beats, clock = heartbeat(8, 8, 8)
    clock.now += 1000
    assert beats.verdict(1.0).startswith("no process has ended step 8 for 16.7 minutes")


def test_other_processes_leave_it_to_process_0_to_say_who_hangs():
    clock = Clock()
    beats = Heartbeat(DistributedConfig(hang_minutes=2.0), NAMES[1:2], patience=2.0, clock=clock)
    beats.heard(0, 8)
    clock.now += 239
    assert beats.verdict(1.0) is None
    clock.now += 2
    assert beats.verdict(1.0).startswith("no process has ended step 8 for 4.0 minutes")


@pytest.mark.parametrize(
    ("steps", "median", "seconds"),
    [
        ((8, RESTS, 8), 1.0, 1e6),  # evaluates
        ((8, 7, 8), None, 1e6),  # too few steps to know
        ((8, 7, 8), 60.0, 1799),  # long steps
        ((1,), 1.0, 1e6),  # others have not begun their first step
    ],
)
def test_nothing_is_said_while_a_step_may_take_so_long(steps, median, seconds):
    beats, clock = heartbeat(*steps)
    clock.now += seconds
    assert beats.verdict(median) is None


def test_a_slow_step_is_blamed_on_the_process_that_waited_for_its_data():
    beats, _ = heartbeat(8, 8, 8, waited=4.0)
    assert beats.cause(8, 10.0) == "process 2 on host-2 waited 8.0 s for its data"
    # its data were awaited while step 7 was computed
    assert beats.cause(7, 10.0) == "process 2 on host-2 waited 8.0 s for its data"
    assert (
        beats.cause(8, 17.0)
        == "not for data: a device or the network of one of 3 processes was slow"
    )


def test_a_single_process_has_a_host():
    assert re.fullmatch(r"process 0 on \S+", *peers.names())
    assert peers.index() == 0


SCRIPT = """
import os, signal, sys, time
from jaxlm.cli.main import main
from jaxlm.training import batches
original, calls = batches.to_devices, []

def hangs(*args):
    calls.append(0)
    if len(calls) == 40:
        {hangs}
    return original(*args)

if sys.argv[-1] == "{index}":
    batches.to_devices = hangs
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_hangs_ends_the_run_with_its_name(tmp_path, index):
    with pair_of_which_one_hangs(tmp_path, index, "time.sleep(1000)") as pair:
        for process in pair:
            assert re.match(
                rf"error: process {index} on \S+ hangs: step \d+ has not begun there",
                last_line(process),
            )


@pytest.mark.slow
def test_where_process_0_stops_as_a_whole_the_others_end_the_run(tmp_path):
    with pair_of_which_one_hangs(tmp_path, 0, "os.kill(os.getpid(), signal.SIGSTOP)") as (
        _,
        process,
    ):
        assert last_line(process).startswith("error: process 0 does not answer, and no process")


def last_line(process):
    """What a process says last that has ended the run."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.endswith("the same command resumes it from the newest checkpoint")
    return last


@contextlib.contextmanager
def pair_of_which_one_hangs(tmp_path, index, hangs):
    """A run of two processes; the one with this index executes a line before its 40th step."""
    write_corpus(tmp_path)
    config = as_config_file(tiny(tmp_path, "pair", steps=100_000), tmp_path / "pair.py")
    flags = ["--mesh.data", "2", "--distributed.hang-minutes", "0.1"]
    flags += ["--evaluation.every", "100000", "--checkpoint.every", "100000"]
    flags += ["--distributed.coordinator", f"localhost:{free_port()}"]
    flags += ["--distributed.num-processes", "2", "--distributed.process-id"]
    pair = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT.replace("{hangs}", hangs).replace("{index}", str(index)),
                str(config),
                *flags,
                str(i),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=_one_device(),
        )
        for i in range(2)
    ]
    try:
        yield pair
    finally:
        for process in pair:
            process.kill()
            process.communicate()


def _one_device():
    import os

    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(REPOSITORY)}
