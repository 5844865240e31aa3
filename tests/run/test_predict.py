"""Predictions row by row: in order, of any batch size and number of devices, continued, of runs and folders."""

import io
import json
import pathlib
import re
import types

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import sharding
from jaxlm.cli.main import main
from jaxlm.config import MeshConfig
from jaxlm.data.rows import ArrayRows
from jaxlm.run import predict, restore
from jaxlm.tasks.downstream.text_pairs import Side, TextPairs


@pytest.fixture(scope="module")
def folder(classifier_folder):
    return classifier_folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(ours, theirs, tolerance=1e-5):
    """The predictions agree, their labels but for ties."""
    assert [line["id"] for line in ours] == [line["id"] for line in theirs]
    for a, b in zip(ours, theirs):
        for name, p in a["probabilities"].items():
            assert abs(p - b["probabilities"][name]) <= tolerance
        assert a["label"] == b["label"] or abs(a["probability"] - b["probability"]) < tolerance


def stream(folder, name="run", window=16, devices=1, data="new.jsonl", done=(), **options):
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:devices])
    model = restore.find(folder / name, mesh=mesh, **options).load("predict")
    return list(predict.stream(model, [str(folder / data)], window=window, done=done))


@pytest.fixture(scope="module")
def expected(folder):
    """What the model says of each text, all of one length."""
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    model = restore.find(folder / "run", mesh=mesh).load("predict")
    task, tokenizer = model.task, model.task.tokenizer
    tokens = np.zeros((50, 32), np.int32)
    for row, line in zip(tokens, lines_of(folder / "new.jsonl")):
        ids = [tokenizer.cls_id, *tokenizer.encode(line["text"])[:30], tokenizer.sep_id]
        row[: len(ids)] = ids
    real = (tokens != tokenizer.pad_id).astype(np.int32)
    logits = task.model.apply({"params": model.params}, tokens, segment_ids=real)
    return [
        {
            "id": f"{folder / 'new.jsonl'}:{i}",
            "label": task.labels[int(p.argmax())],
            "probability": float(p.max()),
            "probabilities": dict(zip(task.labels, p.tolist())),
        }
        for i, p in enumerate(np.asarray(jax.nn.softmax(logits)), 1)
    ]


@pytest.mark.slow
def test_lines_are_those_of_the_model_for_any_batches_windows_and_devices(folder, expected):
    assert len({line["label"] for line in expected}) == 2
    assert_same(stream(folder, batch_size=8), expected)
    assert_same(stream(folder, batch_size=5, window=7), expected)
    assert_same(stream(folder, batch_size=8, window=64, devices=8), expected)
    assert_same(stream(folder, "hf", batch_size=8, seq_len=32), expected)


@pytest.mark.slow
def test_a_file_that_was_cut_off_is_continued_to_the_same_bytes(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        predict.stream, "__kwdefaults__", predict.stream.__kwdefaults__ | {"window": 16}
    )
    whole, part = folder / "whole.jsonl", folder / "part.jsonl"
    argv = ["predict", str(folder / "run"), "--data", str(folder / "new.jsonl"), "--mesh.data", "8"]
    assert main([*argv, "--out", str(whole)]) == 0
    data = whole.read_bytes()
    assert data.count(b"\n") == 50
    # in a window, between two, in a line, at the end, before the first line
    ends = [m for m in range(len(data)) if data[m : m + 1] == b"\n"]
    for size in (ends[20] + 1, ends[15] + 1, ends[30] + 9, len(data), 0):
        part.write_bytes(data[:size])
        assert main([*argv, "--out", str(part)]) == 0
        assert part.read_bytes() == data
    capsys.readouterr()
    # of another file, of another model, of more rows
    lines = data.decode().splitlines(keepends=True)
    other = lines[0].replace("new.jsonl:1", "new.jsonl:2")
    for content, message in [
        (other, "part.jsonl: line 1 is no prediction of"),
        ("text\n", "line 1 is no prediction of"),
        (lines[0].replace("neg", "pos").replace("pos", "neg", 1), "predictions of another model"),
        ("".join(lines) + lines[0], "predictions of more rows"),
    ]:
        part.write_text(content)
        assert main([*argv, "--out", str(part)]) == 2
        assert message in capsys.readouterr().err
        assert part.read_text() == content


BAD = [
    ('{"text": "a good film"}\n{"text": 3}\n', "bad.jsonl:2: column 'text' is not a string"),
    ('{"text": "a good film"}\n{"txt": "a"}\n', "bad.jsonl:2: no column 'text'"),
    ('{"text": "a good film"}\n{"text"}\n', "bad.jsonl:2: broken JSON"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_row_that_cannot_be_used_is_named_or_has_a_line_of_its_own(
    folder, content, message, capsys
):
    (folder / "bad.jsonl").write_text(content + '{"text": " "}\n{"text": "a bad film"}\n')
    argv = ["predict", str(folder / "run"), "--data", str(folder / "bad.jsonl"), "--mesh.data", "8"]
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert main([*argv, "--on-bad-row", "skip"]) == 0
    out, err = capsys.readouterr()
    first, second, third, last = map(json.loads, out.splitlines())
    assert message in f"{second['id']}: {second['error']}"
    assert second["id"].endswith("bad.jsonl:2")
    assert third == {"id": f"{folder / 'bad.jsonl'}:3", "error": "empty text"}
    assert first["label"] and last["label"]
    assert "4 rows read; 1 skipped: " in err
    assert "1 skipped: empty text" in err


def test_an_empty_file_and_a_missing_one_are_named(folder, capsys):
    (folder / "empty.jsonl").write_text("")
    for name, message in (("empty.jsonl", "empty file"), ("none.jsonl", "no such file")):
        argv = ["predict", str(folder / "run"), "--data", str(folder / name), "--mesh.data", "8"]
        assert main(argv) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a good film\n\na bad film\n", '{"sentence": "a good film"}\n'])
def test_standard_input_is_texts_or_objects(folder, text, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(text.encode())))
    columns = ["--columns", "text=sentence"] if "{" in text else []
    argv = ["predict", str(folder / "run"), "--data", "-", "--mesh.data", "8", *columns]
    assert main(argv) == 0
    ids = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert ids == (["stdin:1"] if columns else ["stdin:1", "stdin:3"])


@pytest.mark.parametrize("name", ["run", "hf"])
def test_a_model_in_python_predicts_what_the_command_does(folder, expected, name):
    model = jaxlm.load(folder / name)
    rows = lines_of(folder / "new.jsonl")
    answers = model.predict([row["text"] for row in rows])
    assert_same([e | a for e, a in zip(expected, answers)], expected)
    assert model.predict(rows[0]["text"])["label"] == answers[0]["label"]
    assert model.predict({"text": rows[1]["text"]})["label"] == answers[1]["label"]
    assert model.predict([]) == []
    for value, message in [
        (["a", 3], "input 1: int, not a text, a pair or a dict"),
        ([" "], "input 0: empty text"),
        ([{"txt": "a"}], "input 0: no column 'text'"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.predict(value)
    if name == "run":
        with pytest.raises(ValueError, match="an input of 2 texts, where the model reads 1: text"):
            model.predict(("a", "b"))
    else:
        assert set(model.predict(("a good film", "tea"))["probabilities"]) == {"neg", "pos"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "text"], "--columns text: write role=name"),
        (["--columns", "txt=a"], "reads no column 'txt'; did you mean 'text'?"),
        (["--columns", "text=a", "--text-column", "b"], "the column of text is also b"),
        (["--task", "clasification"], "no task 'clasification'; did you mean classification?"),
        (["--task", "causal_lm"], "task causal_lm does not work with a Classifier"),
        (["--settings", "num_beams"], "--settings num_beams: write name=value"),
        (["--settings", "a=1", "a=2"], "--settings a=2: a is given twice"),
        (["--settings", "num-beams=1"], "classification has no setting 'num_beams' that can be"),
        (["--seq-len", "64"], "seq_len=64 is out of range: 2 to 32"),
    ],
)
def test_wrong_arguments_are_one_line(folder, arguments, message, capsys):
    argv = ["predict", str(folder / "run"), "--data", str(folder / "new.jsonl"), "--mesh.data", "8"]
    assert main([*argv, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_texts_that_fill_a_row_are_counted_unless_their_windows_lose_nothing(folder):
    full = np.array([[1, 1, 1], [1, 0, 0]], np.int32)
    side = Side.of([np.arange(9), np.arange(2)], ((), (0,)), 4)
    pairs = TextPairs.of(side, None, capacities=None, pad_id=0, start_id=0)
    for rows, count in [
        (ArrayRows({"segment_ids": full}), (1, 3)),
        # the two texts of each record
        (ArrayRows({"segment_ids": np.stack([full, full], 1)}), (2, 3)),
        (ArrayRows({"segment_ids": full, "record": np.zeros(2, int)}), (0, 0)),
        (pairs, (1, 4)),
    ]:
        counts = predict.Counts()
        predict._count_full(rows, counts)
        assert (counts.full, counts.full_length) == count


def test_the_example_of_the_guide_runs(folder, tmp_path, monkeypatch, capsys):
    page = pathlib.Path(__file__).parents[2] / "docs" / "evaluating.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sst2").symlink_to(folder / "run")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.count("'probabilities'") == 2
