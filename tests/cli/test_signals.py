"""Ctrl-C before a command has anything to save."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest


def run_script(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50
    )


START = """
import gc, os, signal, sys, time
from jaxlm.cli import signals
# whoever starts the tests in the background has it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.raise_safely()
"""


def test_an_import_ends_at_once(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    sum(range(10**7))\n"
        "finally:\n"
        "    print('not reached')\n"
    )
    run = run_script(
        START + f"sys.path.insert(0, {str(tmp_path)!r})\nprint('first')\nimport slow\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "first\n", "")


def test_what_a_callback_would_swallow_is_raised_after_it():
    run = run_script(
        START
        + """
def _xla_gc_callback(phase, _):
    if phase == "start":
        os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
gc.callbacks.append(_xla_gc_callback)
gc.collect()
gc.callbacks.clear()
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "interrupted\n", "")


def test_elsewhere_it_is_an_exception_and_own_handlers_stay():
    run = run_script(
        START
        + """
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
own = lambda *_: None
signal.signal(signal.SIGINT, own)
signals.raise_safely()
assert signal.getsignal(signal.SIGINT) is own
"""
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "interrupted\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_while_it_starts_says_nothing(tmp_path, seconds, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxlm", "train", "--run-dir", str(tmp_path / "run")],
        cwd=pathlib.Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (128 + number, -number)
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= 1, errors
