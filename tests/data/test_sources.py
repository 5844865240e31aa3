import dataclasses
import gzip
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.config import DataConfig
from jaxlm.data import corpora, formats, reading, sources, splits
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.records import Column, load_records
from jaxlm.tasks.array_vae import ArrayVAE, ArrayVAEConfig


def read(path, wanted=("text",), **options):
    """The rows of a file and the counts."""
    counts = RowCounts()
    config = DataConfig(train=(str(path),), **options)
    typed = {name: Column(name, "label" if name == "label" else "text") for name in wanted}
    return list(reading.read(str(path), config, columns=typed, counts=counts)), counts


def texts(path, **options):
    return [row["text"] for row in read(path, **options)[0]]


def write(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


GOOD = {
    "a.jsonl": '{"text": "one", "label": 1}\n{"text": "two é", "label": "b", "more": [1]}\n',
    "crlf.jsonl": '{"text": "one", "label": 1}\r\n\r\n  \n{"text": "two é", "label": "b"}',
    "bom.jsonl": '\ufeff{"text": "one", "label": 1}\n{"text": "two é", "label": "b"}\n',
    "a.json": '[\n {"text": "one", "label": 1},\n {"text": "two \\u00e9", "label": "b"}\n]',
    "lines.json": '{"text": "one", "label": 1}\n{"text": "two é", "label": "b"}\n',
    "a.csv": 'label,text\n1,one\nb,"two é"\n',
    "bom_crlf.csv": '\ufefftext , label\r\none,1\r\n\r\n"two é",b\r\n',
    "a.tsv": "text\tlabel\none\t1\ntwo é\tb\n",
}


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_format_gives_the_same_rows(tmp_path, name, packed):
    path = write(tmp_path, name + packed, GOOD[name])
    records, counts = read(path, wanted=("text", "label"))
    assert [(row["text"], row["label"]) for row in records] == [("one", "1"), ("two é", "b")]
    assert counts.read == 2
    assert not counts.skipped
    assert [sorted(row) for row in records] == [["id", "label", "text"]] * 2


def test_ids_are_paths_with_lines(tmp_path):
    lines = {"crlf.jsonl": (1, 4), "a.json": (2, 3), "a.csv": (2, 3), "bom_crlf.csv": (2, 4)}
    for name, places in lines.items():
        path = write(tmp_path, name, GOOD[name])
        assert [row["id"] for row in read(path)[0]] == [f"{path}:{place}" for place in places]


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", "two"], "label": [3, 4], "more": [0.5, 1.0]}), path)
    records, _ = read(path, wanted=("text", "label"))
    assert records == [
        {"text": "one", "label": "3", "id": f"{path}:1"},
        {"text": "two", "label": "4", "id": f"{path}:2"},
    ]


@pytest.mark.parametrize(
    ("unit", "want"),
    [
        ("file", [(1, "one\ntwo\n\n \n\nthree\n")]),
        ("line", [(1, "one"), (2, "two"), (6, "three")]),
        ("paragraph", [(1, "one\ntwo"), (6, "three")]),
    ],
)
def test_units_of_text_files(tmp_path, unit, want):
    path = write(tmp_path, "a.txt", "one\r\ntwo\r\n\n \n\nthree\n")
    records, _ = read(path, text_unit=unit)
    assert [(row["id"], row["text"]) for row in records] == [(f"{path}:{n}", t) for n, t in want]


def test_long_fields_are_read(tmp_path):
    # more than the csv module takes by default
    assert len(texts(write(tmp_path, "a.csv", "text\n" + "x" * 200_001 + "\n"))[0]) == 200_001


def test_a_quote_is_text_in_tsv_and_syntax_in_csv(tmp_path):
    assert texts(write(tmp_path, "a.tsv", 'text\n"open\nsay ""x""\n')) == ['"open', 'say ""x""']
    assert texts(write(tmp_path, "a.csv", 'text\n"two\nlines"\n"say ""x"""\n')) == [
        "two\nlines",
        'say "x"',
    ]


def test_tables_without_a_header(tmp_path):
    path = write(tmp_path, "a.tsv", "good film\t1\nbad film\t0\n")
    records, _ = read(path, ("text", "label"), columns=("text", "label"))
    assert [(row["text"], row["label"]) for row in records] == [
        ("good film", "1"),
        ("bad film", "0"),
    ]


def test_patterns_are_sorted(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.txt", "other.md"):
        write(tmp_path, name, name)
    assert texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "**/*.txt") == ["a.txt", "b.txt", "sub/c.txt"]
    # a name with brackets is a name if there is such a file
    write(tmp_path, "[x].txt", "brackets")
    assert texts(tmp_path / "[x].txt") == ["brackets"]


# name, content, line of the fault, start of the message, rows that are read if bad rows are skipped
BAD_ROWS = [
    ("a.jsonl", '{"text": "a"}\n{"text": \n', 2, "broken JSON: a value is missing", ["a"]),
    (
        "a.jsonl",
        '{"text": "a"}\n{"text": "b"} x\n{"text": "c"}',
        2,
        "broken JSON: text after the end",
        ["a", "c"],
    ),
    ("a.jsonl", '"a"\n{"text": "b"}\n', 1, "not a JSON object", ["b"]),
    ("a.jsonl", "[" * 100_000 + '\n{"text": "b"}', 1, "broken JSON: nested too deeply", ["b"]),
    (
        "a.jsonl",
        '{"text": ' + "1" * 5000 + '}\n{"text": "b"}',
        1,
        "broken JSON: Exceeds the limit",
        ["b"],
    ),
    (
        "a.jsonl",
        '{"txt": "a", "n": 1}\n{"text": "b"}',
        1,
        "no column 'text': the row has: txt, n",
        ["b"],
    ),
    ("a.jsonl", '{"text": "a"}\n{"text": null}', 2, "null in column 'text'", ["a"]),
    (
        "a.jsonl",
        '{"text": 3}\n{"text": "b"}',
        1,
        "column 'text' is not a string: 3 is of type int",
        ["b"],
    ),
    ("a.jsonl", '{"text": ["x"]}\n{"text": "b"}', 1, "column 'text' is not a string", ["b"]),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n{"text": "c"}', 2, "not UTF-8", ["a", "c"]),
    ("a.jsonl", '{"text": "a\\u0000b"}\n{"text": "b"}', 1, "NUL character in column 'text'", ["b"]),
    (
        "a.jsonl",
        '{"text": "a\\ud800b"}\n{"text": "b"}',
        1,
        "lone surrogate in column 'text'",
        ["b"],
    ),
    (
        "a.json",
        '[{"text": "a"},\n{"text": }, {"text": "c"}]',
        2,
        "broken JSON: a value is missing",
        ["a"],
    ),
    ("a.json", '[{"text": "a"}\n{"text": "b"}]', 1, "broken JSON: expected , or ]", ["a"]),
    ("a.json", '[{"text": "a"}]\n\n[]', 3, "broken JSON: text after the end", ["a"]),
    (
        "a.json",
        '[{"text": "a"},\n{"text": "b", "text": "c"}, {"text": "d"}]',
        2,
        "broken JSON: duplicate key 'text'",
        ["a", "d"],
    ),
    (
        "a.jsonl",
        '{"text": "a", "n": {"m": 1, "m": 1}}\n{"text": "b"}',
        1,
        "broken JSON: duplicate key 'm'",
        ["b"],
    ),
    ("a.json", '[{"text": "a"},\n 3]', 2, "not a JSON object", ["a"]),
    ("a.json", b'[{"text": "a"},\n{"text": "\xff"}]', 2, "not UTF-8", ["a"]),
    (
        "a.csv",
        "text,b\na,1\nb\nc,1\n",
        3,
        "wrong number of fields: 1 where the header has 2",
        ["a", "c"],
    ),
    ("a.csv", "text,b\na,1\nb,1,2\n", 3, "wrong number of fields: 3 where the header has 2", ["a"]),
    ("a.csv", 'text,b\na,1\n"b,1\nc,1\n', 3, "broken row: unexpected end of data", ["a"]),
    ("a.csv", 'text,b\na,1\n"b"x,1\nc,1\n', 3, "broken row: ',' expected after '\"'", ["a", "c"]),
    ("a.csv", "text\na\nb\0\n", 3, "NUL character", ["a"]),
    ("a.csv", b"text\na\n\xe9\n", 3, "not UTF-8", ["a"]),
    ("a.tsv", "text\tb\na\t1\nb\n", 3, "wrong number of fields", ["a"]),
    (
        "a.tsv",
        "text\na\n" + "x" * 200_001 + "\n",
        3,
        "broken row: field larger than field limit",
        ["a"],
    ),
]


@pytest.mark.parametrize(("name", "content", "line", "message", "rest"), BAD_ROWS)
def test_bad_rows_are_errors_with_their_line_or_are_counted(
    tmp_path, monkeypatch, name, content, line, message, rest
):
    monkeypatch.setattr(formats, "_LONGEST_FIELD", 200_000)
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=r"^") as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: {message}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 250

    records, counts = read(path, on_bad_row="skip")
    assert [row["text"] for row in records] == rest
    assert sum(counts.skipped.values()) == counts.read - len(rest) == 1
    assert f"{path}:{line}" in str(counts)


@pytest.mark.parametrize("label", ["1.5", "NaN", "null", "true", '["a"]', '" "', "{}"])
def test_labels_are_strings_or_whole_numbers(tmp_path, label):
    path = write(
        tmp_path, "a.jsonl", f'{{"text": "a", "label": "x"}}\n{{"text": "b", "label": {label}}}\n'
    )
    with pytest.raises(ValueError, match=r"a\.jsonl:2: .*'label'"):
        read(path, ("text", "label"))
    records, counts = read(path, ("text", "label"), on_bad_row="skip")
    assert len(records) == 1
    assert sum(counts.skipped.values()) == 1


def test_whitespace_around_labels_is_removed(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na, x\nb,x \n")
    assert [row["label"] for row in read(path, ("text", "label"))[0]] == ["x", "x"]


def test_empty_texts_are_skipped_and_counted(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": ""}\n{"text": " \\n"}\n{"text": "c"}\n')
    records, counts = read(path)
    assert [row["text"] for row in records] == ["c"]
    assert dict(counts.skipped) == {"empty text": 2}
    assert str(counts) == f"3 rows read; 2 skipped: empty text (first at {path}:1)"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv.gz"])
def test_empty_files(tmp_path, name):
    path = write(tmp_path, name, "")
    with pytest.raises(ValueError, match=f"{name}:1: empty file"):
        read(path)
    assert read(path, on_bad_row="skip")[1].skipped == {"empty file": 1}
    # nothing is left of a source that is this file; of a pattern there may be
    with pytest.raises(ValueError, match=r"it has no rows$"):
        read(path)
    with pytest.raises(ValueError, match=r"set data\.on_bad_row=skip"):
        read(tmp_path / f"*{name[1:]}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text\nhello".encode("utf-16"), "UTF-16, not UTF-8: convert it"),
        ("a.txt", "hello".encode("utf-16-be"), "a binary file, not text (or text in UTF-16"),
        ("a.csv", gzip.compress(b"text\n1\n", mtime=0), "compressed by gzip: add .gz to its name"),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0),
            "compressed by gzip: add .gz",
        ),
        ("a.csv", b"PK\x03\x04xl/workbook", "a zip archive (as .xlsx"),
        ("a.json", b"PAR1\x15", "a parquet file: name it .parquet"),
        ("a.txt", b"%PDF-1.7\n", "a PDF file, not text"),
        ("a.tsv", bytes(range(256)), "a binary file, not text"),
        ("a.csv", b"te\xffxt,b\n1,2\n", "a.csv:1: not UTF-8: convert the file"),
    ],
    ids=range(9),
)
def test_files_that_are_not_text_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{name}")) as e:
        read(tmp_path / name)
    assert message in str(e.value)


def test_a_byte_of_zero_alone_is_an_error_of_its_row(tmp_path):
    (tmp_path / "a.txt").write_bytes("some wörds\x00 and more\n".encode())
    with pytest.raises(ValueError, match=r"a\.txt:1: NUL character in column 'text'"):
        read(tmp_path / "a.txt")


def test_a_missing_column_is_named_with_the_option_of_its_task(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3)))
    config = DataConfig(train=(str(tmp_path / "a.npz"),))
    own = SimpleNamespace(task=ArrayVAEConfig(), data=config)
    with pytest.raises(ValueError, match=r"no column 'x'; it has: images; set --task\.column$"):
        load_records(config, ArrayVAE.columns(own, "train"), "train")


BAD_FILES = [
    ("a.csv", "txt,b\n1,2\n", "no column 'text'; it has: txt, b; set data.text_column"),
    ("a.csv", "text,text\n1,2\n", "more than one column 'text'"),
    ("a.pdf", "x", "unknown file type; supported are .txt, .jsonl, .json, .csv, .tsv"),
    ("a", "x", "unknown file type"),
    ("a.parquet", "x", "not a valid parquet file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_unreadable_files_are_errors_in_any_case(tmp_path, name, content, message, on_bad_row):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=r"^") as error:
        read(path, on_bad_row=on_bad_row)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_missing_files_folders_and_patterns_without_a_match(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.txt: no such file"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match=r"a folder, not a file; give a pattern such as"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"\*\.txt: no file matches"):
        read(tmp_path / "*.txt")


def test_corrupt_gzip_files(tmp_path):
    whole = gzip.compress(json.dumps({"text": "a" * 1000}).encode())
    for data in (b"no gzip", whole[:-12], whole[:15] + b"\0\0\0" + whole[18:]):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged gzip file"):
            read(path)


def test_parquet_rows_are_checked_too(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None], "label": [0.5, 1.0]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet:2: null in column 'text'"):
        read(path)
    with pytest.raises(
        ValueError, match=r"a\.parquet:1: column 'label' is not a string or a whole number"
    ):
        read(path, ("text", "label"))
    with pytest.raises(ValueError, match=r"no column 'body'; it has: text, label"):
        read(path, ("body",))


def test_text_files_have_one_column(tmp_path):
    path = write(tmp_path, "a.txt", "x")
    with pytest.raises(ValueError, match=r"no column 'label'; it has: text"):
        read(path, ("text", "label"))


# the hub


def labelled(config, split):
    """The examples of a classification."""
    columns = {"text": Column(config.text_column, "text")}
    if config.pair_column is not None:
        columns["pair"] = Column(config.pair_column, "text")
    return load_records(config, columns | {"label": Column(config.label_column, "label")}, split)


def fake_hub(monkeypatch, **parts):
    import datasets

    asked = []

    def load_dataset(name, variant):
        asked.append((name, variant))
        return datasets.DatasetDict(
            {part: datasets.Dataset.from_dict(c) for part, c in parts.items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_hub_sources_read_the_right_split(monkeypatch):
    asked = fake_hub(
        monkeypatch,
        train={"text": ["a", "b"], "label": [0, 1]},
        test={"text": ["t"], "label": [1]},
        validation={"text": ["v"], "label": [0]},
    )
    config = DataConfig(train=("hub:org/name:part",), validation=("hub:org/name",))
    assert sources.load_texts(config, "train").texts == ["a", "b"]
    validation = labelled(config, "validation")
    assert (validation.columns["text"], validation.columns["label"]) == (["v"], ["0"])
    assert validation.ids == ["hub:org/name/validation:1"]
    assert asked == [("org/name", "part"), ("org/name", None)]


def test_hub_labels_are_names(monkeypatch):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(train=data))
    records, counts = read("hub:x", ("text", "label"), on_bad_row="skip")
    assert [row["label"] for row in records] == ["pos"]
    assert counts.skipped == {"null in column 'label'": 1}


def test_hub_failures_are_errors_of_one_line(monkeypatch):
    import datasets

    fake_hub(monkeypatch, other={"text": ["a"]})
    with pytest.raises(ValueError, match="hub:x: no split for train; it has: other"):
        read("hub:x")

    def offline(*_):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"hub:x: cannot be loaded .* ConnectionError: no route"):
        read("hub:x")


def test_importing_the_readers_imports_no_heavy_package():
    script = "import sys, jaxlm.data.sources; print({'datasets', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


# training and validation


@pytest.fixture
def many(tmp_path):
    """500 rows with 250 different texts."""
    rows = [{"text": f"text {i // 2}", "label": i % 3, "other": f"o{i}"} for i in range(500)]
    return str(write(tmp_path, "many.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))


def test_the_splits_are_disjoint_and_complete(many):
    config = DataConfig(train=(many,), validation_fraction=0.2)
    train, validation = (sources.load_texts(config, split) for split in ("train", "validation"))
    assert not set(train.texts) & set(validation.texts)
    assert len(train) + len(validation) == 500
    assert len(validation) == pytest.approx(100, abs=4 * 2 * (250 * 0.16) ** 0.5)
    assert len(set(train.ids + validation.ids)) == 500


def test_a_larger_fraction_contains_the_smaller_one(many):
    small, large = (
        set(
            sources.load_texts(DataConfig(train=(many,), validation_fraction=f), "validation").texts
        )
        for f in (0.1, 0.3)
    )
    assert small < large


def test_the_hash_is_the_same_in_every_process():
    # Python's own hash of strings differs from process to process
    held_out = [i for i in range(200) if splits.in_validation(f"text {i}", 0.05)]
    assert held_out == [3, 33, 43, 62, 102, 118, 119, 130, 197]


def test_whitespace_around_a_text_does_not_change_its_split():
    assert all(
        splits.in_validation(f" text {i}\n", 0.5) == splits.in_validation(f"text {i}", 0.5)
        for i in range(50)
    )


def test_named_validation_sources_are_used_completely(tmp_path, many):
    other = write(tmp_path, "other.txt", "just this")
    config = DataConfig(train=(many,), validation=(str(other),))
    assert len(sources.load_texts(config, "train")) == 500
    assert sources.load_texts(config, "validation").texts == ["just this"]


def test_labels_and_pairs(many):
    config = DataConfig(train=(many,), validation_fraction=0, pair_column="other")
    train = labelled(config, "train")
    assert [train.columns[role][3] for role in ("text", "pair", "label")] == ["text 1", "o3", "0"]
    assert "pair" not in labelled(DataConfig(train=(many,)), "train").columns
    assert len(labelled(config, "validation")) == 0


@pytest.mark.parametrize("count", [1, 7])
def test_max_documents_is_a_prefix_of_each_split(many, count):
    everything = DataConfig(train=(many,), validation_fraction=0.2)
    few = DataConfig(train=(many,), validation_fraction=0.2, max_documents=count)
    for split in ("train", "validation"):
        assert (
            sources.load_texts(few, split).texts
            == sources.load_texts(everything, split).texts[:count]
        )


def test_sources_that_max_documents_leaves_unread_are_named(tmp_path, many):
    other = str(write(tmp_path, "other.jsonl", '{"text": "another text", "label": 1}\n'))
    few = DataConfig(train=(many, other), validation_fraction=0.2, max_documents=3)
    said = corpora.load(few, {}).describe()
    assert said.count(f"data.max_documents leaves unread: {other}") == 2
    assert "; validation (20% held out): 3 documents" in said
    both = dataclasses.replace(few, max_documents=None)
    assert "unread" not in corpora.load(both, {}).describe()
    own = dataclasses.replace(both, train=(many,), validation=(other,))
    assert "; validation: 1 documents" in corpora.load(own, {}).describe()


def test_one_long_document_is_cut_at_a_line(tmp_path):
    lines = [f"line {i}\n" for i in range(100)]
    config = DataConfig(
        train=(str(write(tmp_path, "a.txt", "".join(lines))),), validation_fraction=0.1
    )
    train, validation = (sources.load_texts(config, split) for split in ("train", "validation"))
    assert len(train) == len(validation) == 1
    assert train.texts[0] + validation.texts[0] == "".join(lines)
    assert train.texts[0].endswith("\n")
    assert 9 <= validation.texts[0].count("\n") <= 12


def test_labelled_examples_are_never_cut(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a long text", "label": 1}\n')
    config = DataConfig(train=(str(path),))
    assert len(labelled(config, "train")) == 1
    with pytest.raises(ValueError, match="too few examples to hold out 5% of them"):
        labelled(config, "validation")


def test_a_source_without_a_usable_row_is_an_error(tmp_path, many):
    path = write(tmp_path, "a.jsonl", '{"text": ""}\n{"txt": "a"}\n')
    config = DataConfig(train=(many, str(path)), on_bad_row="skip")
    with pytest.raises(ValueError, match=r"a\.jsonl: no usable rows; .*no column 'text'"):
        sources.load_texts(config, "train")


def test_built_in_text_is_split_by_module():
    for config in (
        DataConfig(train=("builtin:python-packages",)),
        DataConfig(train=("builtin:python-packages",), validation=("builtin:python-packages",)),
    ):
        train, validation = (labelled(config, split) for split in ("train", "validation"))
        assert not {" ".join(t.split()) for t in train.columns["text"]} & {
            " ".join(t.split()) for t in validation.columns["text"]
        }
        assert not set(train.ids) & set(validation.ids)
        assert set(validation.columns["label"]) == set(train.columns["label"])
        assert len(validation) == pytest.approx(0.05 * len(train), rel=0.5)


def test_built_in_text_without_labels_is_an_error():
    with pytest.raises(ValueError, match=r"builtin:python-docs: no column 'label'; it has: text"):
        labelled(DataConfig(), "train")
    with pytest.raises(ValueError, match=r"builtin:nothing: no such corpus; known: python-docs"):
        sources.load_texts(DataConfig(train=("builtin:nothing",)), "train")
