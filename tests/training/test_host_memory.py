"""Freed memory is kept between steps: measured by page faults."""

import os
import subprocess
import sys

import pytest

from jaxlm.cli import main as cli
from jaxlm.run import finetune, folder, pretrain
from jaxlm.training import host_memory

STEPS = """
import resource
import jax, jax.numpy as jnp
from jax._src import xla_bridge
from jaxlm.config import TrainConfig
import jaxlm.run.pretrain
from jaxlm.training import host_memory, processes

assert processes.is_main() and not xla_bridge._backends, "the backend must not have started"
changed = host_memory.keep_freed()
# a product needs its first factor in memory: 100 MB of temporaries
step = jax.jit(lambda x: (jnp.outer(x, x) @ x).sum())
x, pages = jnp.ones(5000), []
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(changed, sorted(pages)[7])
"""


def run(code=STEPS, **variables):
    """Whether malloc was configured, and a number: with `STEPS`, the median number of page faults per step."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    changed, number = done.stdout.split()
    return changed == "True", int(number)


@pytest.mark.skipif(sys.platform != "linux", reason="about the GNU C library")
@pytest.mark.slow
def test_steps_allocate_no_new_pages():
    changed, pages = run()
    if not changed:
        pytest.skip("another C library")
    assert pages < 100
    # the configuration of the user is kept: temporaries are allocated from the system in each step
    changed, pages = run(MALLOC_TOP_PAD_="0")
    assert not changed
    assert pages > 10_000


LARGE_PIECE = """
import ctypes
from jaxlm.training import host_memory

def address_space():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmSize"))

changed = host_memory.keep_freed()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = address_space()
piece = c.malloc(3 * 2**30)  # never written to: takes no memory
c.free(piece)
print(changed and piece is not None, address_space() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about the GNU C library")
def test_allocations_of_more_than_two_gibibytes_are_kept_too():
    could, kibibytes = run(LARGE_PIECE)
    if not could:
        pytest.skip("another C library, or no room")
    assert kibibytes > 2**21


def test_malloc_is_not_configured_with_an_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert not host_memory.keep_freed()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(host_memory, "_ACCELERATORS", ("/dev/null*",))
    assert not host_memory.keep_freed()


@pytest.mark.parametrize(
    ("command", "module", "function"),
    [("train", pretrain, "pretrain"), ("finetune", finetune, "finetune")],
)
def test_the_command_line_configures_malloc_before_the_run(command, module, function, monkeypatch):
    calls = []
    monkeypatch.setattr(host_memory, "keep_freed", lambda: calls.append("keep_freed"))
    monkeypatch.setattr(module, function, lambda config: calls.append(function))
    monkeypatch.setattr(folder, "print_result", lambda summary: None)
    assert cli.main([command]) == 0
    assert calls == ["keep_freed", function]
