"""Whole refinements: accounts, resuming, tasks, formats, and what goes wrong on the way."""

import dataclasses
import errno
import gzip
import json
import os
import pathlib
import random
import re
import signal
import string
import subprocess
import sys
import time
from typing import ClassVar

import pytest

pytest.importorskip("datatrove")

from jaxlm.cli.refine import Options, refine_files
from jaxlm.refine import executors, pipeline, shards
from jaxlm.refine.duplicate_urls import DuplicateUrls, same_url
from jaxlm.refine.extraction import Extraction
from jaxlm.refine.near_duplicates import NearDuplicates
from jaxlm.refine.readers import Inputs
from jaxlm.refine.recipe import Recipe
from jaxlm.refine.rule import Drop, Rule
from jaxlm.refine.substrings import Substrings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Short(Rule):
    """Drops short documents, and takes the first line out of those that begin with a #."""

    name: ClassVar[str] = "short"
    source: ClassVar[str] = "this test"
    least: int = 30

    def check(self, document):
        if document.text.startswith("#"):
            first, _, rest = document.text.partition("\n")
            document.text = rest
            document.metadata["removed_lines"] = [["comment", first]]
        if len(document.text) < self.least:
            return Drop("too_short", len(document.text), self.least)
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fails(Rule):
    """Fails on one document, in one of several ways, as long as a file is not there."""

    name: ClassVar[str] = "fails"
    source: ClassVar[str] = "this test"
    repaired: pathlib.Path
    how: str

    def check(self, document):
        if "page 17 " in document.text and not self.repaired.exists():
            if self.how == "dies":
                os._exit(9)
            if self.how == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full")
            raise RuntimeError("a mistake")
        return None


def _words(i, count=40):
    # of letters alone: to MinHash all numbers are the same
    rng = random.Random(str(i))
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(count))


# 60 rows: of every ten, one is short, one has a comment, two are near copies, two have a URL that was there, two share
# a span of 50 words
def _rows():
    shared = _words("s", 50)
    rows = []
    for i in range(60):
        text = f"page {i} {_words(i)}"
        url = f"http://example.com/{i}"
        match i % 10:
            case 1:
                text = f"page {i}"
            case 2:
                text = f"# a comment\n{text}"
            case 3:
                text = f"page {i - 3} {_words(i - 3)} w"
            case 4:
                url = f"https://www.example.com/{i - 4}/#top"
            case 5:
                text = f"{text} {shared} end"
        rows.append({"id": f"d{i}", "url": url, "text": text, "more": {"i": i}})
    return rows


def _write_inputs(folder):
    folder.mkdir()
    rows = _rows()
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows[:35])
        file.write("no json\n")
    with open(folder / "b.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows[35:])
        file.write('{"id": 1}\n')
    return str(folder)


RECIPE = Recipe(
    extraction=None,
    more=(Short(),),
    # the pages that share a span are 0.35 similar: with these numbers they are not found (4e-4)
    near_duplicates=NearDuplicates(buckets=10, hashes=10),
    substrings=Substrings(),
    duplicate_urls=DuplicateUrls(),
)


def _refine(tmp_path, name="out", recipe=RECIPE, inputs=None, **options):
    out = tmp_path / name
    options = {"workers": 0, "tasks": 3, **options}
    source = inputs or _write_inputs(tmp_path / f"in_{name}")
    refine_files("test", recipe, (source,), out, Options(**options))
    return out


def _documents(out):
    rows = [row for path in sorted((out / "documents").iterdir()) for row in shards.read(path)]
    return {row["id"]: row for row in rows}


def _contents(out):
    found = sorted(p for p in out.rglob("*") if p.is_file())
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in found
        if p.relative_to(out).parts[0] in ("documents", "dropped")
    }


def test_every_document_is_accounted_for(tmp_path):
    out = _refine(tmp_path, keep_dropped=True)
    funnel = json.loads((out / "funnel.json").read_text())
    by_stage = {stage["name"]: stage for stage in funnel["stages"]}
    assert list(by_stage) == [
        "read", "short", "near_duplicates", "substrings", "duplicate_urls",
    ]  # fmt: skip
    assert {k: v["documents"] for k, v in by_stage["read"]["dropped"].items()} == {
        "damaged": 1,
        "no_text": 1,
    }
    assert by_stage["read"]["documents_in"] == 62
    assert by_stage["short"]["dropped"]["too_short"]["documents"] == 6
    assert by_stage["short"]["bytes_edited"] == 6 * len("# a comment\n")
    assert by_stage["near_duplicates"]["dropped"]["near_duplicate"]["documents"] == 6
    assert by_stage["duplicate_urls"]["dropped"]["seen_before"]["documents"] == 6
    assert by_stage["substrings"]["bytes_edited"] > 6 * 50 * 3
    found = _documents(out)
    assert funnel["output"]["documents"] == len(found) == 60 - 18
    assert found["d0"]["minhash_cluster_size"] + found.get("d3", {}).get(
        "minhash_cluster_size", 0
    ) == 2  # fmt: skip
    # "end" follows the span in all of them
    assert found["d5"]["text"] == f"page 5 {_words(5)}"
    assert found["d2"]["text"].startswith("page 2 ")
    assert found["d6"]["more"] == {"i": 6}
    # all that was dropped can be read, with the reason
    dropped = [row for p in (out / "dropped").rglob("*.zst") for row in shards.read(p)]
    lost = [row for row in dropped if row["rule"] != "edited"]
    assert sorted(row["id"] for row in lost if row["stage"] != "read") == sorted(
        {f"d{i}" for i in range(60)} - set(found)
    )
    # of what could not be read, where it stands
    assert {
        (row["rule"], row["id"].rpartition("/")[2]) for row in lost if row["stage"] == "read"
    } == {
        ("damaged", "a.jsonl.gz#35"),
        ("no_text", "b.jsonl#25"),
    }
    short = next(row for row in dropped if row["rule"] == "too_short")
    assert (short["stage"], short["threshold"]) == ("short", 30)
    edited = next(row for row in dropped if row["stage"] == "short" and row["rule"] == "edited")
    assert edited["removed"] == [["comment", "# a comment"]]
    assert edited["text"].startswith("# a comment")
    assert (out / "report.html").exists()
    # only what is of use is left
    assert not list((out / "work").rglob("*.zst"))


@pytest.mark.slow
def test_more_processes_and_parquet_give_the_same_documents(tmp_path):
    one = _refine(tmp_path, "one")
    two = _refine(tmp_path, "two", inputs=str(tmp_path / "in_one"), workers=2)
    assert _contents(one) == _contents(two)
    three = _refine(tmp_path, "three", inputs=str(tmp_path / "in_one"), output="parquet")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(three / "documents").to_pylist()
    assert {row["id"]: row["text"] for row in rows} == {
        key: row["text"] for key, row in _documents(one).items()
    }
    assert json.loads(next(r for r in rows if r["id"] == "d6")["metadata"])["more"] == {"i": 6}
    # more tasks than files: every task reads its share of a file
    records = Inputs.of((str(tmp_path / "in_one"),)).records
    ids = [r.document.id for task in range(7) for r in records(task, 7) if r.document]
    assert sorted(ids) == sorted(f"d{i}" for i in range(60))


def test_a_finished_folder_is_left_alone_and_others_are_refused(tmp_path, capsys):
    out = _refine(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"}
    capsys.readouterr()
    _refine(tmp_path, inputs=str(tmp_path / "in_out"))
    assert "was finished before" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"} == before
    changed = dataclasses.replace(RECIPE, more=(Short(least=31),))
    with pytest.raises(ValueError, match=r"different more"):
        _refine(tmp_path, inputs=str(tmp_path / "in_out"), recipe=changed)
    with pytest.raises(ValueError, match="different tasks"):
        _refine(tmp_path, inputs=str(tmp_path / "in_out"), tasks=4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        _refine(tmp_path, "other", inputs=str(tmp_path / "in_out"))


@pytest.mark.parametrize(
    "how",
    [
        "dies",
        pytest.param("disk", marks=pytest.mark.slow),
        pytest.param("mistake", marks=pytest.mark.slow),
    ],
)
def test_what_failed_is_told_and_gone_on_with(tmp_path, how):
    whole = _refine(tmp_path, "whole")
    repaired = tmp_path / "repaired"
    recipe = dataclasses.replace(RECIPE, more=(Short(), Fails(repaired=repaired, how=how)))
    message = {"dies": "died", "disk": "No space left", "mistake": "a mistake"}[how]
    inputs = str(tmp_path / "in_whole")
    with pytest.raises(executors.TaskFailed) as e:
        _refine(tmp_path, "broken", recipe, inputs, workers=2)
    assert message in str(e.value)
    assert "the same command goes on" in str(e.value)
    assert not list((tmp_path / "broken").rglob("funnel.json"))
    repaired.mkdir()
    out = _refine(tmp_path, "broken", recipe, inputs, workers=2)
    assert {k: v for k, v in _contents(out).items() if k.startswith("documents")} == {
        k: v for k, v in _contents(whole).items() if k.startswith("documents")
    }
    assert not list(out.rglob("*.tmp"))


def test_what_changes_the_result_is_part_of_the_settings(tmp_path):
    """Files that settings name, the inputs themselves, and folders that would be read again."""
    source = _write_inputs(tmp_path / "in")
    extra = tmp_path / "evaluation.jsonl"
    extra.write_text(json.dumps({"text": " ".join(["word"] * 20)}))
    inputs = pathlib.Path(source, "b.jsonl")
    before = inputs.read_text()
    _refine(tmp_path, "one", inputs=source, decontaminate=(str(extra),))
    extra.write_text(json.dumps({"text": " ".join(["sword"] * 20)}))
    with pytest.raises(ValueError, match="different decontamination"):
        _refine(tmp_path, "one", inputs=source, decontaminate=(str(extra),))
    _refine(tmp_path, "two", inputs=source)
    inputs.write_text(before.replace("page 40 ", "page 4O "))
    os.utime(inputs, (1, 1))
    with pytest.raises(ValueError, match="different input_versions"):
        _refine(tmp_path, "two", inputs=source)
    with pytest.raises(ValueError, match="lies in the input"):
        _refine(tmp_path, "in/out", inputs=source)
    with pytest.raises(ValueError, match=r"name .*/two/documents"):
        _refine(tmp_path, "three", inputs=str(tmp_path / "two"))


def test_the_code_of_other_modules_is_part_of_the_settings(tmp_path, monkeypatch):
    (tmp_path / "my_extractors.py").write_text("def read(page):\n    return page\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = pipeline._plain(Extraction(extractor="my_extractors:read"))
    assert before == pipeline._plain(Extraction(extractor="my_extractors:read"))
    (tmp_path / "my_extractors.py").write_text("def read(page):\n    return page.strip()\n")
    assert before != pipeline._plain(Extraction(extractor="my_extractors:read"))
    # a rule of this file, and one of jaxlm, whose version is told elsewhere
    assert len(pipeline._plain(Short())["code"]) == 64
    assert "code" not in before


def test_rows_in_utf16_are_told(tmp_path):
    for i, encoding in enumerate(["utf-16", "utf-16-le", "utf-16-be"]):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "rows.jsonl").write_text('{"text": "a heron"}\n', encoding=encoding)
        with pytest.raises(ValueError, match=r"rows\.jsonl: is UTF-16.*iconv"):
            _refine(tmp_path, f"out{i}", inputs=str(folder))


def test_workers_of_a_killed_call_end_before_the_next_one_writes(tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "import dataclasses, time\n"
        "from jaxlm.refine.recipe import Recipe\n"
        "from jaxlm.refine.rule import Rule\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Slow(Rule):\n"
        "    name = 'slow'\n"
        "    source = ''\n"
        "    def check(self, document):\n"
        "        time.sleep(0.5)\n"
        "def get_config():\n"
        "    return Recipe(extraction=None, more=(Slow(),))\n"
    )
    source = _write_inputs(tmp_path / "in")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jaxlm", "refine", str(recipe), source, str(out)]
    process = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL)
    waiting = time.monotonic()
    while not list(out.rglob("*.tmp")):
        assert time.monotonic() - waiting < 120
        time.sleep(0.1)
    process.kill()
    process.wait()
    # the only process that is left notices and frees the lock
    executors._wait_for_workers(out / ".workers")


def test_inputs_that_are_not_there_or_not_known(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "empty").mkdir()
    for path, message in [
        ("a.docx", "unknown kind"),
        ("none.jsonl", "no such"),
        ("empty", "no .*files there"),
    ]:
        with pytest.raises(ValueError, match=message):
            Inputs.of((str(tmp_path / path),))


def test_a_column_that_is_not_there(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"content": ["one", "two"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column 'text'; it has content"):
        _refine(tmp_path, inputs=str(tmp_path / "a.parquet"), workers=1)


def test_odd_rows_are_counted(tmp_path):
    rows = [
        '{"text": "\\ud800 half"}',
        "[1]",
        '{"text": ""}',
        '{"text": 5}',
        '"x"',
        "",
        '{"text": "a", "url": 7, "removed_lines": 3, "language": 1}',
        '{"text": "a", "url": "\\ud800"}',
        json.dumps({"text": "a", "n": 10**30}),
        '{"text": "a", "n": ' + "[" * 400 + "]" * 400 + "}",
        json.dumps({"text": "x" * 2000}),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "whole"}\n' * 50)[:-20])
    inputs = Inputs.of((str(tmp_path),), most_bytes=1000)
    found = list(inputs.records(0, 1))
    faults = [r.fault for r in found[:10]]
    assert faults == [
        "", "damaged", "empty", "no_text", "damaged", "", "odd_metadata", "odd_metadata", "odd_metadata", "too_large",
    ]  # fmt: skip
    assert found[5].document.metadata == {}
    assert found[0].document.text == "� half"
    assert "url" not in found[5].document.metadata
    assert found[-1].fault == "damaged"


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://www.Example.com/a/?q=1#x", "example.com/a?q=1"),
        ("http://example.com:80/a?q=1", "example.com/a?q=1"),
        ("http://[bad/a", "http://[bad/a"),
        ("", ""),
    ],
)
def test_urls_that_are_the_same(url, same):
    assert same_url(url) == same


def test_the_command(tmp_path, capsys):
    from jaxlm.cli.main import main

    source = _write_inputs(tmp_path / "in")
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from jaxlm.refine.recipe import Recipe\n"
        "from jaxlm.refine.substrings import Substrings\n"
        "def get_config():\n    return Recipe(substrings=Substrings(length=50))\n"
    )
    out = str(tmp_path / "out")
    command = ["refine", str(recipe), source, out, "--workers", "0", "--tasks", "2"]
    assert main([*command, "--add", "duplicate_urls", "--substrings.keep", "first"]) == 0
    printed = capsys.readouterr().out
    assert "substrings" in printed
    assert "54 documents" in printed
    bad = tmp_path / "bad.json"
    bad.write_text('{"zh": {"quality": {"nonsense": 3}}}')
    swapped, wrong = tmp_path / "swapped.json", tmp_path / "wrong.json"
    swapped.write_text('{"quality": {"zh": {"min_words": 3}}}')
    wrong.write_text('{"zh": {"quality": {"min_words": "many"}}}')
    for arguments, message in [
        (["refine", "fancyweb", source, out], "no such recipe"),
        (["refine", "refinedweb", out], "usage: jaxlm refine"),
        ([*command, "--skip", "lnes"], "no such stage"),
        ([*command, "--add", "lnes"], "--add lnes"),
        (["refine", "report", source], "no funnel.json"),
        (
            ["refine", "fineweb", source, f"{out}2", "--thresholds", str(bad)],
            "no fields ['nonsense']",
        ),
        (["refine", "fineweb", source, f"{out}2", "--thresholds", "gone.json"], "gone.json"),
        (["refine", "fineweb", source, f"{out}2", "--thresholds", str(swapped)], "quality.zh"),
        (
            ["refine", "fineweb", source, f"{out}2", "--thresholds", str(wrong)],
            "'many' is not a number",
        ),
        (["refine", "fineweb", source, f"{out}2", "--language.keep", "english"], "ISO 639"),
        (["refine", "fineweb", source, f"{out}2", "--add", "c4", "--skip", "c4"], "one of them"),
        (["refine", "fineweb", source, f"{out}2", "--classifier-label", "x"], "no effect"),
        (["refine", "fineweb", source, out, "--tasks", "0"], "at least 1"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    # what is refused leaves no folder
    assert not (tmp_path / "out2").exists()


def test_the_recipe_of_the_guide(tmp_path, capsys):
    from jaxlm.cli.main import main

    guide = pathlib.Path(__file__).parents[2] / "docs" / "refining.md"
    (code,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    texts = ["one? two? three?", "one two three. Four?" + " word" * 40]
    rows = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    skip = ["urls", "language", "repetition", "quality", "lines", "near_duplicates"]
    out = tmp_path / "out"
    command = ["refine", str(tmp_path / "mine.py"), str(tmp_path / "in.jsonl"), str(out)]
    assert main([*command, "--workers", "0", "--tasks", "1", "--skip", *skip]) == 0
    assert list(_documents(out)) == ["1"]
    stages = json.loads((out / "funnel.json").read_text())["stages"]
    assert [s["name"] for s in stages if s["dropped"]] == ["questions"]


def test_no_document_is_worth_a_warning(tmp_path, capsys):
    out = _refine(tmp_path, text_column="body")
    assert _documents(out) == {}
    assert "no document is kept; most by read: no_text (61)" in capsys.readouterr().err


def test_thresholds_of_a_language(tmp_path, capsys):
    from jaxlm.cli.main import main

    rows = [json.dumps({"text": f"{_words(i, 80)}.\n{_words(-i, 60)}."}) for i in range(1, 121)]
    (tmp_path / "clean.jsonl").write_text("\n".join(rows))
    out = tmp_path / "de.json"
    command = ["refine", "thresholds", str(tmp_path / "clean.jsonl"), str(out)]
    assert main([*command, "--language", "de", "--method", "mean_std"]) == 0
    assert "quality" in json.loads(out.read_text())["de"]
    assert "--thresholds" in capsys.readouterr().out
    assert main(command) == 2
    assert "--language" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_it_gives_the_same_bytes(tmp_path):
    recipe = tmp_path / "mine.py"
    # every document takes some time, so that kills meet all phases
    recipe.write_text(
        "import dataclasses, time\n"
        "from jaxlm.refine.duplicate_urls import DuplicateUrls\n"
        "from jaxlm.refine.near_duplicates import NearDuplicates\n"
        "from jaxlm.refine.recipe import Recipe\n"
        "from jaxlm.refine.rule import Rule\n"
        "from jaxlm.refine.substrings import Substrings\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Slow(Rule):\n"
        "    name = 'slow'\n"
        "    source = ''\n"
        "    def check(self, document):\n"
        "        time.sleep(0.05)\n"
        "def get_config():\n"
        "    return Recipe(extraction=None, more=(Slow(),), substrings=Substrings(),\n"
        "                  near_duplicates=NearDuplicates(buckets=20, hashes=5), duplicate_urls=DuplicateUrls())\n"
    )
    source = _write_inputs(tmp_path / "in")

    def start(name, workers):
        command = [
            sys.executable,
            "-m",
            "jaxlm",
            "refine",
            str(recipe),
            source,
            str(tmp_path / name),
        ]
        return subprocess.Popen(
            [*command, "--tasks", "6", "--workers", str(workers)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    assert start("whole", 1).wait(200) == 0
    kills = 0
    while True:
        process = start("killed", 2)
        try:
            assert process.wait(1 + 0.75 * kills) == 0
            break
        except subprocess.TimeoutExpired:
            # the command and its workers
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            assert kills < 20
    assert kills >= 2
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")


def test_token_shards_hold_the_documents(tmp_path):
    from jaxlm.config import DataConfig, TokenizerConfig
    from jaxlm.data import shards as token_shards
    from jaxlm.data import sources, tokenizer

    texts = [row["text"] for row in _rows()]
    made = tokenizer.train(texts, TokenizerConfig(kind="char"))
    made.save(tmp_path / "tokenizer.json")
    out = _refine(tmp_path, tokenize=tmp_path / "tokenizer.json")
    assert token_shards.is_finished(out / "tokens")
    manifest = token_shards.read_manifest(out / "tokens")
    documents = _documents(out)
    assert sum(split["documents"] for split in manifest["splits"].values()) == len(documents)
    found = token_shards.load(str(out / "tokens"), "train").token_documents(made)
    written = {made.decode(found[i].tolist()) for i in range(len(found))}
    assert written <= {row["text"] for row in documents.values()}
    assert len(written) > 20
    # the documents are data for training themselves
    source = str(out / "documents" / "*.jsonl.zst")
    data = DataConfig(train=(source,), validation_fraction=0.0)
    assert len(sources.load_texts(data, "train").texts) == len(documents) == 42
