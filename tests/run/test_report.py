"""`jaxlm report`: what it finds out about a run; the page itself is in tests/report/test_report_page.py."""

import re

import pytest
from runs import small_runs, tiny, write_corpus

from jaxlm.cli.main import main
from jaxlm.config import MeshConfig
from jaxlm.run import report
from jaxlm.run.pretrain import pretrain

# trains a classifier
pytestmark = pytest.mark.slow


def test_the_command_writes_the_report_of_a_run(classifier_folder, capsys):
    folder = classifier_folder
    argv = ["report", str(folder / "run"), "--mesh.data", "8", "--bootstrap", "50"]
    assert main([*argv, "--out", str(folder / "a.html")]) == 0
    assert f"the report is in {folder / 'a.html'}" in capsys.readouterr().out
    text = (folder / "a.html").read_text()
    sections = re.findall(r'<section id="([\w-]+)"', text)
    assert sections[:4] == ["results", "curves", "classes", "calibration"]
    assert sections[-3:] == ["lengths", "run", "settings"]
    # the same again, and of the same model in the other layout
    assert main([*argv, "--out", str(folder / "b.html")]) == 0
    assert (folder / "b.html").read_text() == text


def test_the_report_of_a_language_model_shows_its_worst_texts(tmp_path):
    write_corpus(tmp_path)
    with small_runs():
        pretrain(tiny(tmp_path, steps=2))
        page = report.report(tmp_path / "run", samples=20, mesh=MeshConfig(data=1))
    sections = re.findall(r'<section id="([\w-]+)"', page)
    assert sections == ["results", "curves", "worst-texts", "run", "settings"]
    # six validation documents, their tokens one by one
    assert page.count('<p class="tokens">') == 6
    tokens = re.findall(r'<span style="[^"]*" title="([\d.]+)">(.*?)</span>', page)
    assert len(tokens) == 6 * 15
    losses = [float(x) for x in re.findall(r"<h3>([\d.]+) ", page)]
    assert losses == sorted(losses, reverse=True)
    assert "95%: " in page
