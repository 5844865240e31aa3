"""Plans for TPUs and GPUs, compiled here without one; in processes of their own, because libtpu is loaded once."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# a table so large that it is prefetched in slices, whose costs XLA does not know
MODEL = {"vocab-size": 32768, "dim": 512, "num-heads": 4, "max-len": 256, "num-layers": 8}
SMALL = [word for name, n in MODEL.items() for word in (f"--model.{name}", str(n))]
SMALL += ["--data.seq-len", "256", "--mesh.data", "1", "--mesh.fsdp", "-1", "--trials", "0"]
HAS_TPU = importlib.util.find_spec("libtpu") is not None
HAS_CUDA = importlib.util.find_spec("jax_cuda13_plugin") is not None


def plan(*argv):
    """The plan that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxlm", "plan", *argv, *SMALL, "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not HAS_TPU, reason="libtpu is not installed")
def test_a_slice_of_a_pod():
    found = plan("--topology", "v5e:2x2", "--price", "1.2")
    assert (found["devices"], found["device_kind"]) == (4, "TPU v5 lite")
    assert found["mesh"] == {**found["mesh"], "fsdp": 4}
    memory, time = found["memory"], found["time"]
    assert memory["fits"] and memory["source"] == "compiler"
    assert time["source"] == "compiler"
    # eight layers cost more than the products on paper at the chip's peak, but not many times as much
    on_paper = found["flops_per_token"] * found["tokens_per_step"] / (4 * 197e12)
    assert on_paper < time["compute"] < 20 * on_paper
    assert {axis for c in found["collectives"] for axis in c["axes"]} == {"fsdp"}
    assert found["cost_per_billion_tokens"] > 0


@pytest.mark.skipif(not HAS_CUDA, reason="the CUDA plugin is not installed")
def test_nodes_of_gpus():
    found = plan("--topology", "h100:2x4", "--price", "2.5")
    assert (found["devices"], found["device_kind"]) == (8, "NVIDIA H100 80GB HBM3")
    assert found["memory"]["fits"]
    assert found["time"]["source"] == "roofline"
    assert any(c["crosses_nodes"] for c in found["collectives"])
