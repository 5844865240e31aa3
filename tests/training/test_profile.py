"""A run with a trace of some of its steps, and its goodput."""

import json

import jax
import pytest
from runs import small_runs, tiny, write_corpus

from jaxlm import pretrain
from jaxlm.training import profile


def test_a_trace_of_chosen_steps_is_in_the_run_folder(tmp_path, capsys):
    write_corpus(tmp_path)
    with small_runs():
        summary = pretrain(tiny(tmp_path, "traced", steps=6, profile=(3, 4)))
    [trace] = (tmp_path / "traced/plugins/profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert "the trace of steps 3 to 4 is in " in " ".join(capsys.readouterr().out.split())
    rows = [json.loads(x) for x in (tmp_path / "traced/metrics.jsonl").read_text().splitlines()]
    shares = [row["goodput"] for row in rows if "goodput" in row]
    assert len(shares) == 6
    assert all(0 < share < 1 for share in [*shares, summary["goodput"]])


def test_a_run_that_ends_before_the_last_step_to_trace_says_what_it_traced(tmp_path, monkeypatch):
    calls, said = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", calls.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    trace = profile.Profile((3, 9), tmp_path, said.append)
    for step in range(1, 6):
        trace.before(step)
    trace.stop()
    trace.stop()
    assert calls == [tmp_path, "stop"]
    assert said == [f"the trace of steps 3 to 5 is in {tmp_path / 'plugins/profile'}"]


def test_a_run_that_resumes_after_the_steps_to_trace_says_so(tmp_path):
    said = []
    trace = profile.Profile((3, 4), tmp_path, said.append)
    for step in range(5, 9):
        trace.before(step)
    trace.stop()
    assert said == ["no trace: this session begins after step 4, the last one to trace"]


def test_steps_after_the_last_one_are_refused_before_anything_is_compiled(tmp_path):
    write_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"profile=\(7, 9\): the run ends at step 6"):
        pretrain(tiny(tmp_path, "late", steps=6, profile=(7, 9)))


@pytest.mark.parametrize("steps", [(0, 3), (4, 3)])
def test_steps_that_cannot_be_traced_are_refused(tmp_path, steps):
    with pytest.raises(ValueError, match="the first and the last step to trace"):
        tiny(tmp_path, profile=steps)
