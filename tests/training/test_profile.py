"""A run with a trace of some of its steps, and its goodput."""

import json

import pytest
from runs import small_runs, tiny, write_corpus

from jaxlm import pretrain


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


@pytest.mark.parametrize("steps", [(0, 3), (4, 3)])
def test_steps_that_cannot_be_traced_are_refused(tmp_path, steps):
    with pytest.raises(ValueError, match="the first and the last step to trace"):
        tiny(tmp_path, profile=steps)
