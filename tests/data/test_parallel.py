"""Parallel text files and columns that are fields of objects."""

import gzip
import json

import pytest

from jaxlm.config import DataConfig
from jaxlm.data.columns import Column
from jaxlm.data.reading import read
from jaxlm.data.records import load_records

COLUMNS = {
    "source": Column("source", "text"),
    "target": Column("target", "text", option="task.target-column"),
}


def rows(source, columns=COLUMNS, **options):
    return list(read(source, DataConfig(train=(source,), **options), columns=columns))


@pytest.fixture
def files(tmp_path):
    # a separator of lines that is none in UTF-8 text files, and a lone carriage return
    (tmp_path / "a.de").write_bytes("eins\u2028zwei\rdrei\r\nvier\n".encode())
    with gzip.open(tmp_path / "a.en.gz", "wt", encoding="utf-8") as file:
        file.write("one two three\nfour\n")
    return tmp_path


def test_lines_of_two_files_are_pairs(files):
    source = f"parallel:{files}/a.de,{files}/a.en.gz"
    found = rows(source)
    assert [(r["source"], r["target"]) for r in found] == [
        ("eins\u2028zwei\rdrei", "one two three"),
        ("vier", "four"),
    ]
    assert [r["id"] for r in found] == [f"{files}/a.de:1", f"{files}/a.de:2"]


def test_names_of_columns_may_be_given_and_one_file_is_enough_without_targets(files):
    source = f"parallel:{files}/a.en.gz,{files}/a.de"
    found = rows(source)
    swapped = {"source": Column("de", "text"), "target": Column("en", "text")}
    config = DataConfig(train=(source,), columns=("en", "de"))
    renamed = list(read(source, config, columns=swapped))
    assert [(r["source"], r["target"]) for r in renamed] == [
        (r["target"], r["source"]) for r in found
    ]
    optional = {**COLUMNS, "target": Column("target", "text", required=False)}
    alone = rows(f"parallel:{files}/a.de", optional)
    assert alone[1]["target"] is None


def test_an_empty_line_skips_the_pair_and_counts_it(files):
    (files / "b.de").write_text("eins\n\ndrei\n")
    (files / "b.en").write_text("one\ntwo\n \n")
    config = DataConfig(train=(f"parallel:{files}/b.de,{files}/b.en",), validation_fraction=0)
    found = load_records(config, COLUMNS, "train")
    assert found.columns["source"] == ["eins"]
    assert "2 skipped: empty text" in found.describe()


def test_what_is_wrong_with_parallel_files_is_one_line(files):
    (files / "short.en").write_text("one\n")
    (files / "bad.en").write_bytes(b"one\nf\xff\n")
    for source, message in {
        f"parallel:{files}/a.de,{files}/short.en": "short.en has 1 lines and another file more",
        f"parallel:{files}/a.de,{files}/none.en": "none.en: no such file",
        f"parallel:{files}/a.de,{files}": "a folder, not a file",
        f"parallel:{files}/a.de,{files}/bad.en": r"a.de:2: not UTF-8",
        f"parallel:{files}/a.de": "no column 'target'",
        "parallel:": "give up to 2 files",
        "parallel:a,b,c": "give up to 2 files",
    }.items():
        with pytest.raises(ValueError, match=message):
            rows(source)


NESTED = {"source": Column("translation.de", "text"), "target": Column("translation.en", "text")}


def test_fields_of_objects_are_columns(tmp_path):
    pairs = [{"translation": {"de": "eins", "en": "one"}}, {"translation": {"de": "zwei"}}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    found = rows(str(path), NESTED, on_bad_row="skip")
    assert [(r["source"], r["target"]) for r in found] == [("eins", "one")]
    with pytest.raises(ValueError, match=r"pairs.jsonl:2: no 'translation.en': the object has: de"):
        rows(str(path), NESTED)
    # a column of the whole name goes first
    path.write_text('{"translation.de": "drei", "translation": {"en": "three"}}\n')
    assert rows(str(path), NESTED)[0]["source"] == "drei"
    path.write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match=r"no column 'translation.de': the row has: other"):
        rows(str(path), NESTED)


def test_fields_of_objects_in_parquet_files(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "pairs.parquet"
    table = pyarrow.Table.from_pylist([{"id": 1, "translation": {"de": "eins", "en": "one"}}])
    parquet.write_table(table, path)
    assert rows(str(path), NESTED)[0]["target"] == "one"
    with pytest.raises(ValueError, match=r"no column 'target.de'"):
        rows(str(path), {"source": Column("target.de", "text")})
