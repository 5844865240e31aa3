"""Processes that test_store.py starts: a full disk, a kill, and two processes that save together.

python checkpoint_process.py full|kill FOLDER
python checkpoint_process.py pair FOLDER OF_ONE_PROCESS PROCESS PORT
"""

import os
import pathlib
import resource
import signal
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.checkpoint import store as ck
from jaxlm.config import CheckpointConfig


def say(*words):
    print(*words, flush=True)


def table(step, rows=64):
    return np.random.default_rng(step).standard_normal((rows, 64), np.float32)


def full(folder):
    """The disk fills up (simulated by a file size limit), has space again, and then stays full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    save = lambda step: checkpoints.save(step, {"params": jnp.asarray(table(step, 4096))})
    checkpoints = ck.Checkpoints(folder, CheckpointConfig(keep=9, max_failures=2), report=say)
    save(1)
    checkpoints.wait()
    for size, steps in ((50_000, [2]), (hard, [3]), (50_000, [4, 5])):
        limit(size)
        try:
            for step in steps:
                save(step)
            checkpoints.wait()
        except ck.CheckpointError as e:
            say("stopped:", e)
        say("folder:", *sorted(p.name for p in folder.iterdir()))


def kill(folder):
    """Kills itself while writing step 2."""
    checkpoints = ck.Checkpoints(folder, CheckpointConfig())
    checkpoints.save(1, {"params": jnp.asarray(table(1))}, wait=True)
    checkpoints.save(2, {"params": jnp.asarray(table(2, 100_000))})
    say(*sorted(p.name for p in folder.iterdir()))
    os.kill(os.getpid(), signal.SIGKILL)


def pair(folder, of_one, process, port):
    """Two processes with two devices each read a checkpoint of one process, save, and skip one that only one reads."""
    # Gloo's threads write to stdout too, in the middle of lines
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    mesh = jax.make_mesh((2, 2), ("data", "model"), (AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, P("data", "model"))
    target = {"params": {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=sharding)}}

    def restore(checkpoints):
        step, got = checkpoints.restore(lambda step: {**target, "data": None})
        assert got["data"] == {"seen": step}
        for shard in got["params"]["w"].addressable_shards:
            np.testing.assert_array_equal(shard.data, table(step)[shard.index])
        return step

    with ck.Checkpoints(of_one, CheckpointConfig(), report=say) as checkpoints:
        say("of one:", restore(checkpoints))
    with ck.Checkpoints(folder, CheckpointConfig(keep=3), report=say) as checkpoints:
        for step in (1, 2, 3):
            w = jax.make_array_from_callback((64, 64), sharding, table(step).__getitem__)
            checkpoints.save(step, {"params": {"w": w}, "data": {"seen": step}})
        say("of two:", restore(checkpoints))
        if process == 0:
            for path in folder.glob("3/params/ocdbt.process_1/d/*"):
                path.write_bytes(b"")
        say("fallen back to:", restore(checkpoints))
        checkpoints.save(3, {"params": {"w": w}, "data": {"seen": 3}}, wait=True)
        say("again:", restore(checkpoints), checkpoints.steps())


if __name__ == "__main__":
    what, folder, *rest = sys.argv[1:]
    if what == "pair":
        pair(pathlib.Path(folder), pathlib.Path(rest[0]), int(rest[1]), int(rest[2]))
    else:
        {"full": full, "kill": kill}[what](pathlib.Path(folder))
