"""Records: the same split as labelled texts, and files of tagged words and of questions."""

import dataclasses
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataConfig, TokenizerConfig
from jaxlm.data import formats, sources, splits, tokenizer
from jaxlm.data.records import Column, load_records

TEXT, LABEL, PAIR = Column("text", "text"), Column("label", "label"), Column("other", "text")
WORDS, TAGS = Column("words", "words"), Column("tags", "tags", over="words")
TAGGED = {"words": WORDS, "tags": TAGS}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Training rows with duplicates, an empty text and an invalid row; validation rows; an evaluation text."""
    rows = [
        {"text": f"text {i // 2} " + "common words " * (i % 7), "label": i % 3, "other": f"o{i}"}
        for i in range(300)
    ]
    rows[5]["text"] = " "
    rows[9]["label"] = None
    test = [{"text": rows[14]["text"] + "and more of them for thirteen", "other": "short"}]
    return {
        name: write(tmp_path, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in part))
        for name, part in {
            "train": rows,
            "more": rows[:20],
            "validation": rows[:40],
            "test": test,
        }.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"validation_fraction": 0.3},
        {"validation_fraction": 0.0},
        {"max_documents": 7},
        {"train": ("train", "more"), "max_documents": 305},
        {"validation": ("validation",)},
        {"decontaminate": ("test",)},
        {"pair_column": "other"},
        {"pair_column": "other", "decontaminate": ("test",), "validation": ("validation",)},
        {"train": ("builtin:python-packages",)},
        {"train": ("builtin:python-packages",), "validation": ("builtin:python-packages",)},
    ],
)
def test_records_are_divided_as_documents_are(files, options):
    options = {"train": ("train",), **options}
    for name in ("train", "validation", "decontaminate"):
        if name in options:
            options[name] = tuple(files.get(source, source) for source in options[name])
    config = DataConfig(**options, on_bad_row="skip")
    columns = {"text": TEXT, "label": LABEL} | ({"pair": PAIR} if config.pair_column else {})
    for split in ("train", "validation"):
        records = load_records(config, columns, split)
        everything = dataclasses.replace(config, max_documents=None)
        documents = sources.load_texts(everything, split)
        wanted = dict(zip(documents.ids, documents.texts))
        assert records.ids == [where for where in documents.ids if where in set(records.ids)]
        assert records.columns["text"] == [wanted[where] for where in records.ids]
        assert 0 < len(records) == len(records.columns["label"]) or not config.validation_fraction
        assert len(records) <= (config.max_documents or len(documents))
        assert records.describe() == f"{len(records):,} examples ({records.counts})"


def test_a_split_without_examples_is_an_error(tmp_path):
    config = DataConfig(train=(write(tmp_path, "a.jsonl", '{"text": "a text", "label": 1}\n'),))
    columns = {"text": TEXT, "label": LABEL}
    assert load_records(config, columns, "train").columns == {"text": ["a text"], "label": ["1"]}
    with pytest.raises(ValueError, match="too few examples to hold out 5% of them"):
        load_records(config, columns, "validation")
    with pytest.raises(
        ValueError, match="no required column of kind text, words, messages or numbers among x"
    ):
        load_records(config, {"x": LABEL}, "train")


def test_the_first_required_column_with_a_text_divides(tmp_path):
    rows = [
        {"n": i, "words": ["a", str(i)], "chat": [{"role": "user", "content": f"c {i}"}]}
        for i in range(40)
    ]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(train=(path,), validation_fraction=0.5)
    number, chat = Column("n", "number"), Column("chat", "messages")
    for columns, texts in [
        ({"n": number, "w": WORDS, "m": chat}, [f"a {i}" for i in range(40)]),
        ({"n": number, "m": chat, "w": WORDS}, [f"c {i}" for i in range(40)]),
        (
            {"o": Column("n2", "text", required=False), "m": chat, "n": number},
            [f"c {i}" for i in range(40)],
        ),
    ]:
        held_out = [float(i) for i, text in enumerate(texts) if splits.in_validation(text, 0.5)]
        assert load_records(config, columns, "validation").columns["n"] == held_out


def test_decontamination_compares_every_column_with_a_text(tmp_path):
    long = [f"word{i}" for i in range(20)]
    train = [{"words": long[2:]}, {"words": long[:5]}]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in train))
    test = write(tmp_path, "test.jsonl", json.dumps({"words": ["short"], "text": " ".join(long)}))
    config = DataConfig(train=(path,), validation_fraction=0, decontaminate=(test,))
    columns = {"w": WORDS, "t": Column("text", "text", required=False)}
    records = load_records(config, columns, "train")
    assert records.columns == {"w": [long[:5]], "t": [None]}
    assert records.counts.skipped == {"shares 13 consecutive words with an evaluation text": 1}


def test_records_and_their_tokens(tmp_path):
    content = '{"a": "ab c", "b": null}\n{"a": "b", "b": "x"}\n{"a": "ca", "b": "y"}\n'
    path = write(tmp_path, "a.jsonl", content)
    config = DataConfig(train=(path,), validation_fraction=0)
    columns = {"source": Column("a", "text"), "target": Column("b", "text", required=False)}
    records = load_records(config, columns, "train")
    assert records.record(0) == {"source": "ab c", "target": None, "id": f"{path}:1"}
    some = records.take([2, 1])
    assert some.columns == {"source": ["ca", "b"], "target": ["y", "x"]}
    assert some.ids == [f"{path}:3", f"{path}:2"]
    tok, other = (
        tokenizer.train(["abcxy ", extra], TokenizerConfig(kind="char", vocab_size=64))
        for extra in ("", "aaa0123456789")
    )
    for t in (tok, other):
        ids = some.token_ids("source", t)
        assert [row.tolist() for row in ids] == [t.encode("ca"), t.encode("b")]
        assert some.token_ids("source", t) is ids
        assert [row.tolist() for row in some.token_ids("target", t)] == [
            t.encode("y"),
            t.encode("x"),
        ]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: no text in the column .* 'target'"):
        records.token_ids("target", tok)


# words and tags, a line each

CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

-DOCSTART- -X- O

Peter NNP B-PER
\t
"""


def load(path, columns, **options):
    return load_records(
        DataConfig(train=(path,), validation_fraction=0, **options), columns, "train"
    )


@pytest.mark.parametrize("name", ["a.conll", "a.iob2", "a.bio", "a.conll.gz"])
@pytest.mark.parametrize("separator", [" ", "  ", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_column_files(tmp_path, name, separator, newline):
    content = CONLL.replace(" ", separator).replace("\n", newline)
    path = write(tmp_path, name, content)
    records = load(path, TAGGED)
    assert records.columns["words"] == [["EU", "rejects"], ["Peter"]]
    assert records.columns["tags"] == [["B-ORG", "O"], ["B-PER"]]
    assert records.ids == [f"{path}:3", f"{path}:8"]


def test_column_files_without_tags_and_with_other_names(tmp_path):
    path = write(tmp_path, "a.bio", "\n\nan\napple\n\n\n\nx")
    optional = {"w": Column("tokens", "words"), "t": Column("ner", "tags", False, over="w")}
    records = load(path, optional)
    assert records.columns == {"w": [["an", "apple"], ["x"]], "t": [None, None]}
    with pytest.raises(
        ValueError, match=r"a\.bio: no column 'tags'; it has: words; the task reads"
    ):
        load(path, TAGGED)
    with pytest.raises(
        ValueError, match=r"a\.bio: no column 'text'; it has: words; set data\.text"
    ):
        load(path, {"text": TEXT})


def test_words_with_spaces_in_column_files_with_tabs(tmp_path):
    path = write(tmp_path, "a.conll", "New York\tB\nis\tO\n")
    assert load(path, TAGGED).columns["words"] == [["New York", "is"]]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("a O\nb O\n\nc O\nd X O\ne\n\nf O\n", 5, "3 where the first line of the file has 2"),
        ("a O\nb O\n\nc\n\nf O\n", 4, "wrong number of columns: 1 where the first line"),
        ("a\tO\nb\tO\n\nc\t\n\nf\tO\n", 4, "wrong number of columns: 1 where the first line"),
        ("a\tX\tO\nb\tX\tO\n\nc\t\tO\n\nf\tX\tO\n", 4, "2 where the first line of the file has 3"),
        ("a O\nb O\n\nc O\n\udcff O\n\nf O\n", 5, "not UTF-8"),
        ("a O\nb O\n\nc\0 O\n\nf O\n", 4, "NUL character in column 'words'"),
        ("a O\nb O\n\n\u00a0 O\n\nf O\n", 4, "empty word in column 'words': item 1 of 1"),
    ],
)
def test_bad_lines_of_column_files(tmp_path, content, line, message):
    path = tmp_path / "a.conll"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"^") as error:
        load(str(path), TAGGED)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)
    # the other sentences can be used
    records = load(str(path), TAGGED, on_bad_row="skip")
    assert records.columns["words"] == [["a", "b"], ["f"]]


# questions

QUESTIONS = {
    "question": Column("question", "text"),
    "context": Column("context", "text"),
    "answers": Column("answers", "answers", over="context"),
}


def squad(**changes):
    """Two articles, the second question of the first paragraph changed."""
    answer = {"text": "Paris", "answer_start": 8}
    second = {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True}
    second = {k: v for k, v in (second | changes).items() if v != "absent"}
    first = {"id": "q1", "question": "Where?", "answers": [answer] * 2, "is_impossible": False}
    third = {"id": "q3", "question": "What?", "answers": [{"text": "b", "answer_start": 2}]}
    return {
        "version": "v2.0",
        "data": [
            {"title": "A", "paragraphs": [{"context": "this is Paris", "qas": [first, second]}]},
            {"title": "B", "paragraphs": [{"context": "a b", "qas": [third]}]},
        ],
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_squad_is_flattened_to_a_row_a_question(tmp_path, indent):
    path = write(tmp_path, "a.json", json.dumps(squad(), indent=indent))
    columns = {**QUESTIONS, "key": Column("id", "label"), "title": Column("title", "text")}
    records = load(path, columns)
    assert records.ids == [f"{path}:1", f"{path}:2", f"{path}:3"]
    assert records.columns == {
        "question": ["Where?", "Who?", "What?"],
        "context": ["this is Paris", "this is Paris", "a b"],
        "answers": [
            {"text": ["Paris", "Paris"], "answer_start": [8, 8]},
            {"text": [], "answer_start": []},
            {"text": ["b"], "answer_start": [2]},
        ],
        "key": ["q1", "q2", "q3"],
        "title": ["A", "A", "B"],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "absent"}, "no column 'question': the row has: title, context, id"),
        ({"question": 3}, "column 'question' is not a string"),
        ({"answers": "absent"}, "no column 'answers'"),
        ({"answers": {}}, "data[0].paragraphs[0].qas[1] has answers of type dict, expected a list"),
        ({"answers": ["x"]}, "qas[1] has answers[0] x, expected text and answer_start"),
        (
            {"answers": [{"text": "is", "answer_start": 4}], "is_impossible": False},
            "answer in column 'answers' is not at its answer_start: item 1 of 1: expected 'is' at character 4",
        ),
        (
            {"answers": [{"text": "is", "answer_start": 5}]},
            "qas[1] has is_impossible True and 1 answers, which contradict each other",
        ),
        ({"is_impossible": False}, "has is_impossible False and 0 answers"),
        ({"is_impossible": "no"}, "has is_impossible 'no' and 0 answers"),
    ],
)
def test_errors_in_squad_name_the_question(tmp_path, change, message):
    path = write(tmp_path, "a.json", json.dumps(squad(**change)))
    with pytest.raises(ValueError, match=r"^") as error:
        load(path, QUESTIONS)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)
    assert len(load(path, QUESTIONS, on_bad_row="skip")) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([3], "data[0] is of type int, expected an object with paragraphs"),
        ([{"title": "A"}], "data[0] has no paragraphs, expected a list"),
        ([{"paragraphs": [{"context": "a"}]}], "data[0].paragraphs[0] has no qas, expected a list"),
        ([{"paragraphs": [{"qas": {}}]}], "data[0].paragraphs[0] has qas of type dict"),
        ([{"paragraphs": [{"qas": [{}]}]}], "data[0].paragraphs[0] has no context"),
        (
            [{"paragraphs": [{"qas": [3], "context": "a"}]}],
            "data[0].paragraphs[0].qas[0] is of type int, expected an object with id, question",
        ),
    ],
)
def test_files_that_are_not_in_squad_format(tmp_path, data, message):
    path = write(tmp_path, "a.json", json.dumps({"data": data}))
    with pytest.raises(ValueError, match=r"^") as error:
        load(path, QUESTIONS)
    assert str(error.value).startswith(f"{path}:1: not in the format of SQuAD: {message}")


def test_tags_of_the_hub_are_names_and_optional_columns_may_be_missing(monkeypatch):
    import datasets

    names = datasets.ClassLabel(names=["O", "B"])
    features = {"words": datasets.List(datasets.Value("string")), "tags": datasets.List(names)}
    rows = {"words": [["a", "b"], ["c"]], "tags": [[0, 1], [-1]]}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(train=data))
    columns = {**TAGGED, "x": Column("absent", "number", required=False)}
    records = load("hub:x", columns, on_bad_row="skip")
    assert records.columns == {"words": [["a", "b"]], "tags": [["O", "B"]], "x": [None]}
    with pytest.raises(ValueError, match=r"hub:x/train:2: tag in column 'tags' is not .*None"):
        load("hub:x", TAGGED)


def test_targets_may_be_missing_when_predicting(tmp_path):
    optional = {**QUESTIONS, "answers": Column("answers", "answers", False, over="context")}
    path = write(tmp_path, "a.json", json.dumps(squad(answers="absent", is_impossible="absent")))
    assert load(path, optional).columns["answers"][1] is None


def test_a_row_with_a_column_named_data_is_a_row(tmp_path):
    path = write(tmp_path, "a.json", '{"text": "a", "data": []}')
    assert load(path, {"text": TEXT}).columns == {"text": ["a"]}


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.txt.gz", "bomb.jsonl.zst", "bomb.parquet"])
def test_a_bomb_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(formats, "_UNBOUNDED", 1 << 20)
    path = tmp_path / name
    text = "a" * 1_000_000
    if name.endswith(".parquet"):
        column = pyarrow.array([text] * 300).dictionary_encode()
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
    else:
        data = json.dumps({"text": text}).encode() + b"\n"
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(data * 8))
        else:
            path.write_bytes(pyarrow.compress(data * 8, "zstd", asbytes=True))
    with pytest.raises(ValueError, match=rf"{name}: becomes more than 100 times as long"):
        sources.load_texts(DataConfig(train=(str(path),), validation_fraction=0.0), "train")
