"""`jaxlm report`: what it finds out about a run; the page itself is in tests/report/test_page.py."""

import re

from jaxlm.cli.main import main


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
