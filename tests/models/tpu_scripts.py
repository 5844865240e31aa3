"""Scripts that compile for TPUs, each in a process of its own; they need libtpu but no TPU."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

NEEDS_LIBTPU = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
    ),
]


def lines_of(name: str) -> list[str]:
    """What a script of this folder prints."""
    script = pathlib.Path(__file__).with_name(name)
    # libtpu knows no flags of other backends
    env = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
