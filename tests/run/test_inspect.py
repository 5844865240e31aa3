"""`jaxlm data inspect`: what it prints and writes."""

import json

import pytest
import runs

from jaxlm.cli import main as cli


def test_inspect_shows_rows_and_writes_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.write_corpus(tmp_path)
    path = runs.as_config_file(runs.tiny(tmp_path), tmp_path / "config.py")
    assert cli.main(["data", "inspect", str(path), "--out", "look", "--examples", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" tokens count") == 2
    assert "example 2: " in shown
    assert "read each" in shown
    figures = json.loads((tmp_path / "look/data.json").read_text())
    lines = (tmp_path / "corpus.txt").read_text().splitlines()
    # a fifth is held out
    assert 24 <= figures["documents"] < len(lines) == 40
    assert sum(n for *_, n in figures["length_histogram"]) == figures["documents"]
    characters = figures["length"]["p50"]
    assert 80 < characters < 200
    assert figures["most_frequent"][0][0] == " "
    assert figures["vocabulary_used"] <= figures["vocabulary"]
    assert 0 < figures["entropy_bits"] < 6
    assert figures["rows"]["loss_positions_in_a_row"] > 10
    assert (tmp_path / "look/data.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["data"], "usage: jaxlm data inspect"),
        (["data", "inspect", "--examples", "many"], "not a whole number"),
        (["data", "inspect", "--out"], "--out needs a value"),
        (["data", "inspect", "nothing.py"], "no such config file"),
    ],
)
def test_bad_calls_are_told_in_one_line(words, fault, capsys):
    assert cli.main(words) == 2
    assert fault in capsys.readouterr().err


def test_the_help_names_what_is_written_and_where(capsys):
    assert cli.main(["data", "inspect", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--out DIR", "data.json", "data.png", "data_NAME", "--examples N"):
        assert word in shown
