"""No worker process outlives the process that started it, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

LOADER = """
import numpy as np
from jaxlm.data import loader

class Numbers:
    def __len__(self):
        return 100
    def rows(self, indices, epochs):
        return {"x": np.asarray(indices)}

if __name__ == "__main__":
    batches = iter(loader.Loader(Numbers(), batch_size=2, seed=0, workers=2))
    next(batches)
    print("ready", flush=True)
    while True:
        next(batches)
"""
SHARDS = """
import itertools
from jaxlm.config import TokenizerConfig
from jaxlm.data import shard_writer, shards, tokenizer

if __name__ == "__main__":
    tok = tokenizer.train(["a heron stood there"], TokenizerConfig(kind="char", vocab_size=30))
    shard_writer._CHUNK = 50
    endless = ((text, False) for text in itertools.repeat("a heron stood there"))
    for i, _ in enumerate(shard_writer._encoded(endless, tok, 2)):
        if i == 5:
            print("ready", flush=True)
"""


def children(pid):
    """The processes that a process started, and those that these started."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()[1:]]
    own = [child for child, parent in pairs if parent == pid]
    return own + [x for child in own for x in children(child)]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
@pytest.mark.parametrize("program", [LOADER, SHARDS], ids=["loader", "shards"])
def test_workers_end_with_a_process_that_is_killed(tmp_path, program):
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if is_alive(pid)]
