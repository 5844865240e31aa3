"""A training step compiled for TPUs, with the attention kernel; needs libtpu but no TPU."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_of_local_and_global_layers_compiles_for_tpus_with_splash_and_no_square_mask():
    script = pathlib.Path(__file__).with_name("compile_for_tpu.py")
    # libtpu knows no flags of other backends
    env = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    forward, query, key_value = "splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"
    for kernel in (forward, query, key_value):
        assert any(name.startswith(kernel) for name in facts["splash"]["kernels"]), facts
    # of each layer compiled: local and global in the scan, and one after it
    assert facts["splash"]["calls"] >= 9
    assert facts["splash"]["squares"] == []
    # nothing that is tuned for the CPU, which compiles it
    for program in facts.values():
        assert program["barriers"] == program["host calls"] == 0
    # without the kernel there are such arrays, so that looking for them means something
    assert facts["xla"]["kernels"] == []
    assert facts["xla"]["squares"]
