"""A result never replaces the data or the model that it is made from."""

import pytest

from jaxlm.cli import arguments


def test_a_model_and_its_record_are_not_overwritten(tmp_path):
    run = tmp_path / "run"
    for name in ("config.json", "model-00001-of-00002.safetensors", "checkpoints/5/params"):
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        with pytest.raises(ValueError, match=r"belongs to .*run, and would be overwritten"):
            arguments.check_not_read(path, run)
        with pytest.raises(ValueError, match="belongs to"):
            arguments.beside(path, run, "report.html")
        assert path.read_text() == "{}"


def test_results_beside_a_model_are_made_again(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "config.json"
    for path in (run / "scores.json", run / "results" / "config.json", elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        arguments.check_not_read(path, run)
    assert arguments.beside(None, run, "report.html") == run / "report.html"


def test_a_source_is_not_overwritten(tmp_path):
    source = tmp_path / "a.txt"
    source.write_text("a")
    for named in (source, f"{tmp_path}/*.txt"):
        with pytest.raises(ValueError, match="is read, and would be overwritten"):
            arguments.check_not_read(source, None, named)
