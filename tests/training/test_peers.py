"""Processes of a run that watch each other."""

import queue
import re
import signal

import pytest
from runs import as_config_file, command, tiny, write_corpus
from test_processes import free_port

from jaxlm.training.peers import Peers


def three():
    """Process 0 and two others in one process, and what each says at its end."""
    said = [queue.Queue() for _ in range(3)]
    peers = [Peers(s.put) for s in said]
    port = peers[0].serve(2)
    for index in (1, 2):
        peers[index].connect(("localhost", port), index)
    while len(peers[0]._links) < 2:
        pass
    return peers, said


def vanish(peers):
    """As if the process were killed."""
    peers._is_over = True
    for link in peers._links:
        link.shutdown(2)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_others_say_which_process_was_lost(lost):
    peers, said = three()
    vanish(peers[lost])
    for index in {0, 1, 2} - {lost}:
        line = said[index].get(timeout=10)
        assert re.match(rf"process {lost}( on \S+)? was lost: the run ends here; the same", line)
    assert said[lost].empty()


def test_what_a_process_tells_is_heard_and_is_no_reason_to_end():
    peers, said = three()
    heard = queue.Queue()
    peers[0].listener = lambda index, line: heard.put((index, line))
    peers[2].tell("7 0.125")
    peers[1].tell("8 0.000")
    assert {heard.get(timeout=10) for _ in range(2)} == {(2, "7 0.125"), (1, "8 0.000")}
    vanish(peers[2])
    assert re.match(r"process 2 on \S+ was lost: ", said[0].get(timeout=10))
    # who has heard of an end tells nothing more
    peers[2].tell("9 0.000")
    assert heard.empty()


@pytest.mark.parametrize("failed", [0, 2])
def test_the_reason_of_a_failure_is_passed_on_once(failed):
    peers, said = three()
    peers[failed].fail("the disk\nis full")
    for index in {0, 1, 2} - {failed}:
        line = said[index].get(timeout=10)
        assert re.match(rf"process {failed} on \S+ failed: the disk is full: the run", line)
    assert all(x.empty() for x in said)


def test_processes_that_end_as_they_should_say_nothing():
    peers, said = three()
    for one in (peers[1], peers[0], peers[2]):
        one.close()
    with pytest.raises(queue.Empty):
        said[0].get(timeout=0.3)
    assert all(x.empty() for x in said)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(tmp_path, lost):
    write_corpus(tmp_path)
    config = as_config_file(tiny(tmp_path, "pair", steps=100_000), tmp_path / "pair.py")
    flags = ["--distributed.coordinator", f"localhost:{free_port()}"]
    flags += ["--distributed.num-processes", "2", "--mesh.data", "2"]
    pair = [command(config, *flags, "--distributed.process-id", str(i)) for i in range(2)]
    try:
        for line in pair[0].stdout:
            if line.startswith("step 3/"):
                break
        pair[lost].send_signal(signal.SIGKILL)
        other = pair[1 - lost]
        _, errors = other.communicate(timeout=20)
        if lost == 0 and other.returncode == -signal.SIGABRT:
            # JAX's own service ends with process 0, and may abort before anybody hears of it
            return
        assert other.returncode == 1
        *before, last = errors.splitlines()
        assert re.fullmatch(rf"error: process {lost}.* was lost: the run ends here; .*", last)
        assert lost == 0 or not before, errors
    finally:
        for process in pair:
            process.kill()
            process.communicate()
