"""Documents that share a run of words with evaluation files."""

import json
import os
import pickle
import subprocess
import sys

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.data.overlap import Overlap
from jaxlm.refine.decontamination import Decontamination

WORDS = [f"word{i}" for i in range(30)]
POEM = "床前明月光疑是地上霜舉頭望明月低頭思故鄉"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"question": "short", "answer": " ".join(WORDS[:15])}) + "\n"
    )
    (tmp_path / "test.csv").write_text(f'question,answer\n"{", ".join(WORDS[15:])}!",{POEM}\n')
    (tmp_path / "test.txt").write_text(" ".join(reversed(WORDS)) + "\n")
    return tmp_path


def check(rule, text):
    return rule.check(Document(text=text, id="0", metadata={}))


def test_a_removal_names_the_file_and_the_words(files):
    names = (str(files / "test.jsonl"), str(files / "test.csv"))
    rule = Decontamination(files=names, columns=("question", "answer"))
    assert check(rule, "before " + " ".join(WORDS[2:14]) + " after") is None
    drop = check(rule, "before " + " - ".join(WORDS[2:16]).upper() + " after")
    assert (drop.rule, drop.threshold) == ("shared_run", "no 13 words")
    assert drop.value == f"{names[0]}: {' '.join(WORDS[2:15])}"
    assert check(rule, " ".join(WORDS[16:])).value.startswith(names[1])
    assert check(rule, "詩曰：" + POEM[:12]) is None
    assert check(rule, "詩曰：" + POEM[:13]).value.startswith(f"{names[1]}: 床 前")
    assert check(rule, " ".join(reversed(WORDS))) is None
    for text in ("", "\n" * 1000, "\ud800 " * 100, "x" * 100_000):
        assert check(rule, text) is None


def test_shorter_runs_and_lines_of_text(files):
    rule = Decontamination(files=(str(files / "*.txt"),), run=5, text_unit="line")
    text = " ".join(reversed(WORDS[3:8]))
    assert check(rule, text).value.endswith(text)
    assert check(rule, " ".join(reversed(WORDS[3:7]))) is None


def test_runs_are_the_same_in_every_process(files):
    rule = Decontamination(files=(str(files / "test.txt"),))
    assert check(rule, " ".join(reversed(WORDS)))
    assert pickle.loads(pickle.dumps(rule)) == rule
    code = (
        "from jaxlm.data.overlap import Overlap; print(sorted(Overlap.of(['a b c 好 d'], 3).runs))"
    )
    env = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(sorted(Overlap.of(["a b c 好 d"], 3).runs)), done.stderr


def test_mistakes_are_named(files):
    for fields, message in [
        (dict(files="test.txt"), "files='test.txt' must be a tuple"),
        (dict(files=()), r"files=\(\) must be a tuple"),
        (dict(files=("x",), run=1), "run=1 must be at least 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            Decontamination(**fields)
    with pytest.raises(ValueError, match="no such file"):
        check(Decontamination(files=(str(files / "nothing.txt"),)), "text")
    with pytest.raises(ValueError, match="'text'"):
        check(Decontamination(files=(str(files / "test.csv"),)), "text")
    with pytest.raises(ValueError, match="no text of column question has 13 words"):
        check(Decontamination(files=(str(files / "test.jsonl"),), columns=("question",)), "text")
