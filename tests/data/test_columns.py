"""Every kind of column: valid values, and the error message for each invalid one, with file, row and column."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data import reading
from jaxlm.data.bad_rows import BadRow, RowCounts
from jaxlm.data.columns import Column, check

# role -> column; each row has the text or the words that the kind refers to
COLUMNS = {
    "text": {"x": Column("c", "text")},
    "label": {"x": Column("c", "label")},
    "labels": {"x": Column("c", "labels")},
    "number": {"x": Column("c", "number")},
    "words": {"x": Column("c", "words")},
    # before the column that it refers to: the order of the roles does not matter
    "tags": {"x": Column("c", "tags", over="w"), "w": Column("words", "words")},
    "spans": {"x": Column("c", "spans", over="t"), "t": Column("text", "text")},
    "answers": {"x": Column("c", "answers", over="t"), "t": Column("text", "text")},
    "messages": {"x": Column("c", "messages")},
}
TEXT, WORDS = "Ann met Bob", ["Ann", "met", "Bob"]


def read(path, kind, columns=None, **options):
    config = DataConfig(train=(str(path),), **options)
    return list(reading.read(str(path), config, columns=columns or COLUMNS[kind]))


def write_json(folder, *values):
    """A .jsonl file whose rows have these values (as JSON) in column c."""
    path = folder / "a.jsonl"
    rows = (
        f'{{"c": {value}, "text": {json.dumps(TEXT)}, "words": {json.dumps(WORDS)}}}'
        for value in values
    )
    path.write_text("\n".join(rows) + "\n")
    return path


def write_table(folder, *cells):
    """A .tsv file with these cells in column c."""
    path = folder / "a.tsv"
    rows = (f"{cell}\t{TEXT}\t{json.dumps(WORDS)}" for cell in ("c", *cells))
    path.write_text("\n".join(rows).replace(f"c\t{TEXT}\t{json.dumps(WORDS)}", "c\ttext\twords"))
    return path


SPAN = {"start": 0, "end": 3, "label": "PER"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
# kind, value in the file, value for the task
GOOD = [
    ("text", " a\n", " a\n"),
    ("label", 3, "3"),
    ("label", " yes ", "yes"),
    ("labels", [], []),
    ("labels", ["a", 2, " b "], ["a", "2", "b"]),
    ("number", 3, 3.0),
    ("number", -0.5, -0.5),
    ("words", ["New York", "é"], ["New York", "é"]),
    ("tags", ["B", "O", 1], ["B", "O", "1"]),
    ("spans", [], []),
    (
        "spans",
        [{**SPAN, "start": 8, "end": 11, "text": "Bob", "score": 1}, SPAN],
        [SPAN, {**SPAN, "start": 8, "end": 11}],
    ),
    ("spans", [{**SPAN, "label": 7}], [{**SPAN, "label": "7"}]),
    ("spans", [{**SPAN, "end": 11}, SPAN], [SPAN, {**SPAN, "end": 11}]),
    (
        "answers",
        {"text": ["met", "Bob"], "answer_start": [4, 8]},
        {"text": ["met", "Bob"], "answer_start": [4, 8]},
    ),
    ("answers", {"text": [], "answer_start": []}, {"text": [], "answer_start": []}),
    (
        "messages",
        [{"role": "user", "content": "a", "name": "Ann"}, CALL, {**CALL, "content": None}],
        [{"role": "user", "content": "a", "name": "Ann"}, CALL, CALL],
    ),
]


@pytest.mark.parametrize(("kind", "value", "want"), GOOD)
def test_good_values(tmp_path, kind, value, want):
    (record,) = read(write_json(tmp_path, json.dumps(value)), kind)
    assert record["x"] == want
    assert type(record["x"]) is type(want)
    assert record["id"].endswith("a.jsonl:1")


@pytest.mark.parametrize(
    ("kind", "cell", "want"),
    [
        ("labels", "a| b |3", ["a", "b", "3"]),
        ("labels", '["a|b", "c"]', ["a|b", "c"]),
        ("labels", "a", ["a"]),
        ("labels", " ", []),
        ("number", " -1.5e2 ", -150.0),
        ("number", ".5", 0.5),
        ("number", "3", 3.0),
        ("tags", '["B", "O", "O"]', ["B", "O", "O"]),
        ("spans", json.dumps([SPAN]), [SPAN]),
        ("messages", '[{"role": "user", "content": "a"}]', [{"role": "user", "content": "a"}]),
    ],
)
def test_cells_of_tables_are_parsed_by_kind(tmp_path, kind, cell, want):
    (record,) = read(write_table(tmp_path, cell), kind)
    assert record["x"] == want


def span(**changes):
    return json.dumps([SPAN, {**SPAN, "start": 8, "end": 11} | changes])


def answers(texts, starts):
    return json.dumps({"text": texts, "answer_start": starts})


def message(**changes):
    first = {"role": "user", "content": "a"}
    second = {"role": "assistant", "content": "b"} | changes
    return json.dumps([first, {k: v for k, v in second.items() if v != "absent"}])


# kind, value as JSON, pieces of the message
BAD = [
    ("text", "3", ["column 'c' is not a string: 3 is of type int"]),
    ("text", "null", ["null in column 'c': expected a string"]),
    ("text", r'"a\u0000"', ["NUL character in column 'c'"]),
    ("text", r'"\ud800"', ["lone surrogate in column 'c'"]),
    ("label", "1.5", ["column 'c' is not a string or a whole number: 1.5 is of type float"]),
    ("label", "true", ["is not a string or a whole number: True is of type bool"]),
    ("label", '" "', ["empty label in column 'c'", "expected a string or a whole number"]),
    ("label", "null", ["null in column 'c': expected a string or a whole number"]),
    ("labels", '"a"', ["column 'c' is not a list of labels: 'a' is of type str"]),
    ("labels", "null", ["null in column 'c': expected a list of labels"]),
    ("labels", '["a", 0.5]', ["label in column 'c' is not a string", "item 2 of 2: 0.5"]),
    ("labels", '["a", true]', ["item 2 of 2: True is of type bool"]),
    ("labels", '["a", null]', ["item 2 of 2: None is of type NoneType"]),
    ("labels", '["a", ""]', ["empty label in column 'c': item 2 of 2"]),
    ("labels", '["1", "b", 1]', ["duplicate label in column 'c': '1'", "at most once"]),
    ("labels", r'["\u0000"]', ["NUL character in column 'c'"]),
    ("number", '"3"', ["column 'c' is not a number: '3' is of type str"]),
    ("number", "true", ["column 'c' is not a number: True is of type bool"]),
    ("number", "null", ["null in column 'c': expected a number"]),
    ("number", "NaN", ["column 'c' is not a finite number: nan"]),
    ("number", "-Infinity", ["column 'c' is not a finite number: -inf"]),
    ("number", "1" + "0" * 400, ["column 'c' is not a finite number: 1000"]),
    ("words", '"a b"', ["column 'c' is not a list of words: 'a b' is of type str"]),
    ("words", '["a", 3]', ["word in column 'c' is not a string: item 2 of 2: 3 is of type int"]),
    ("words", '["a", " "]', ["empty word in column 'c': item 2 of 2", "expected strings"]),
    ("words", r'["\u0000"]', ["NUL character in column 'c'"]),
    ("words", "null", ["null in column 'c': expected a list of words"]),
    ("tags", '["O", "O"]', ["column 'c'", "2 tags for 3 words, expected one tag for each"]),
    ("tags", '["O", "O", "O", "O"]', ["4 tags for 3 words"]),
    ("tags", '"O O O"', ["column 'c' is not a list of tags: 'O O O' is of type str"]),
    ("tags", '["O", "O", null]', ["tag in column 'c' is not a string", "item 3 of 3: None"]),
    ("tags", '["O", "", "O"]', ["empty tag in column 'c': item 2 of 3"]),
    ("spans", "{}", ["column 'c' is not a list of {", "{} is of type dict"]),
    ("spans", "[3]", ["span in column 'c' is not an object: item 1 of 1: 3 is of type int"]),
    ("spans", '[{"start": 0, "end": 1}]', ["span without label in column 'c'", "has: start, end"]),
    ("spans", span(start=True), ["start of a span in column 'c' is not a whole number: item 2 of"]),
    ("spans", span(end="9"), ["end of a span in column 'c' is not a whole number", "'9'"]),
    ("spans", span(end=9.0), ["end of a span in column 'c' is not a whole number", "9.0"]),
    ("spans", span(label=None), ["label of a span in column 'c' is not a string or a whole"]),
    ("spans", span(label=" "), ["empty label in column 'c'"]),
    ("spans", span(start=-1), ["span out of range in column 'c': item 2 of 2 has start -1 and"]),
    ("spans", span(start=11), ["start 11 and end 11, expected 0 <= start < end <= 11"]),
    ("spans", span(end=12), ["start 8 and end 12, expected 0 <= start < end <= 11"]),
    (
        "spans",
        span(text="ob"),
        ["does not match its offsets", "has text 'ob', but characters 8 to 11"],
    ),
    ("spans", span(start=0, end=3), ["duplicate span in column 'c'"]),
    ("answers", "[]", ["column 'c' is not {\"text\": ", "[] is of type list"]),
    ("answers", '{"text": []}', ["column 'c' is not {\"text\": ", "no answer_start"]),
    ("answers", '{"text": "a", "answer_start": []}', ["'a' is of type str"]),
    ("answers", answers(["met"], []), ["1 texts and 0 answer_starts"]),
    ("answers", answers([""], [0]), ["answer in column 'c' is not a non-empty string: item 1"]),
    ("answers", answers([3], [0]), ["answer in column 'c' is not a non-empty string: item 1"]),
    ("answers", answers(["met"], [True]), ["answer_start in column 'c' is not a whole number"]),
    ("answers", answers(["Ann", "met"], [0, 5]), ["item 2 of 2: expected 'met' at character 5"]),
    ("answers", answers(["Bo"], [-3]), ["expected 'Bo' at character -3", "has '' there"]),
    ("answers", answers(["Bob!"], [8]), ["expected 'Bob!' at character 8", "has 'Bob' there"]),
    ("messages", '"hi"', ["column 'c' is not a list of {", "'hi' is of type str"]),
    ("messages", "[]", ["no message in column 'c': expected at least one"]),
    ("messages", '["a"]', ["message in column 'c' is not an object: item 1 of 1: 'a'"]),
    ("messages", message(role="absent"), ["message without role in column 'c'", "has: content"]),
    ("messages", message(content="absent"), ["message without content in column 'c': item 2"]),
    ("messages", message(role="bot"), ["unknown role", "'bot', expected system, user, assist"]),
    ("messages", message(role=[]), ["unknown role of a message in column 'c': item 2 of 2: []"]),
    (
        "messages",
        message(content=3),
        ["content of a message in column 'c' is not a string: item 2"],
    ),
    ("messages", message(content=None), ["content of a message", "None is of type NoneType"]),
    (
        "messages",
        message(content=" "),
        ["empty message in column 'c': item 2 of 2, role assistant"],
    ),
    ("messages", message(content="", tool_calls=[]), ["empty message in column 'c'"]),
    ("messages", message(role="tool", content="", tool_calls=[1]), ["item 2 of 2, role tool"]),
    ("messages", message(content="\0"), ["NUL character in column 'c'"]),
]


@pytest.mark.parametrize(("kind", "value", "pieces"), BAD)
def test_bad_values_are_errors_with_file_row_and_column(tmp_path, kind, value, pieces):
    good = next(json.dumps(value) for k, value, _ in GOOD if k == kind)
    path = write_json(tmp_path, good, value, good)
    with pytest.raises(ValueError, match=r"^") as error:
        read(path, kind)
    assert str(error.value).startswith(f"{path}:2: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300
    for piece in pieces:
        assert piece in str(error.value)
    assert len(read(path, kind, on_bad_row="skip")) == 2


@pytest.mark.parametrize(
    ("kind", "cell", "pieces"),
    [
        ("labels", "a||b", ["empty label in column 'c': item 2 of 3"]),
        ("labels", "a|b|a", ["duplicate label in column 'c': 'a'"]),
        ("labels", '["a"', ["broken JSON in column 'c': a comma is missing"]),
        ("number", "nan", ["column 'c' is not a number: 'nan'"]),
        ("number", "1_000", ["column 'c' is not a number: '1_000'"]),
        ("number", "1,5", ["column 'c' is not a number: '1,5'"]),
        ("number", "1e999", ["column 'c' is not a finite number: inf"]),
        ("number", "", ["null in column 'c': expected a number"]),
        ("tags", "O O O", ["broken JSON in column 'c': a value is missing"]),
        ("tags", '"O"', ["column 'c' is not a list of tags"]),
        ("spans", '[{"start": 0, "start": 0}]', ["duplicate key 'start'"]),
    ],
)
def test_bad_cells_of_tables(tmp_path, kind, cell, pieces):
    path = write_table(tmp_path, cell)
    with pytest.raises(ValueError, match=r"^") as error:
        read(path, kind)
    assert str(error.value).startswith(f"{path}:2: ")
    for piece in pieces:
        assert piece in str(error.value)


@pytest.mark.parametrize(("kind", "value"), [("text", '" \\n"'), ("text", '""'), ("words", "[]")])
def test_rows_without_text_are_skipped_and_counted(tmp_path, kind, value):
    path = write_json(tmp_path, value)
    counts = RowCounts()
    config = DataConfig(train=(str(path),))
    assert not list(reading.read(str(path), config, columns=COLUMNS[kind], counts=counts))
    assert counts.skipped == {"empty text": 1}
    # as the input of an instruction that needs none
    (record,) = read(path, kind, {"x": Column("c", kind, required=False)})
    assert record["x"] is None


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_are_not_required_may_be_null_or_missing(tmp_path, kind):
    x, *others = COLUMNS[kind].items()
    optional = {"x": Column(x[1].name, kind, required=False, over=x[1].over), **dict(others)}
    absent = {"x": Column("absent", kind, required=False, over=x[1].over), **dict(others)}
    lines = write_json(tmp_path, "null")
    table = write_table(tmp_path, " ")
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [TEXT], "words": [WORDS]}), parquet)
    for path, columns in [
        (lines, optional),
        (lines, absent),
        (table, optional),
        (table, absent),
        (parquet, absent),
    ]:
        (record,) = read(path, kind, columns)
        assert record["x"] is None
    # a value is still checked
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .*column 'c'"):
        read(write_json(tmp_path, "{}"), kind, optional)


def test_values_with_dangling_references_are_errors(tmp_path):
    columns = {"x": Column("c", "tags", over="w"), "w": Column("absent", "words", required=False)}
    path = write_json(tmp_path, '["O"]')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: column 'c' without column 'absent'"):
        read(path, "tags", columns)


def test_parquet_columns_are_typed(tmp_path):
    path = tmp_path / "a.parquet"
    table = {"words": [WORDS], "c": [["B", "O", "O"]], "n": [0.5], "text": [TEXT], "s": [[SPAN]]}
    pq.write_table(pa.table(table), path)
    columns = {
        **COLUMNS["tags"],
        "n": Column("n", "number"),
        "s": Column("s", "spans", over="t"),
        "t": Column("text", "text"),
    }
    (record,) = read(path, "tags", columns)
    want = {"w": WORDS, "x": ["B", "O", "O"], "n": 0.5, "t": TEXT, "s": [SPAN], "id": f"{path}:1"}
    assert record == want


def test_columns_that_do_not_fit_together_are_errors():
    with pytest.raises(ValueError, match="column 'c': set over to the role of the words column"):
        Column("c", "tags")
    with pytest.raises(ValueError, match="column 'c': over='t' has no effect on kind 'label'"):
        Column("c", "label", over="t")
    with pytest.raises(ValueError, match="column 'c': unknown kind 'txt'; known: text, label"):
        Column("c", "txt")
    for columns, message in [
        ({"id": Column("c", "text")}, "role 'id' is reserved"),
        ({"x": Column("c", "tags", over="w")}, "over='w' is not a column of kind 'words'"),
        (
            {"x": Column("c", "spans", over="w"), "w": Column("words", "words")},
            r"over='w' is not a column of kind 'text'; columns: x \(spans\), w \(words\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            next(reading.read("builtin:python-docs", DataConfig(), columns=columns))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["start", "end", "label", "text", "answer_start", "role", "content"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(kind=st.sampled_from(list(COLUMNS)), value=anything)
# just above the largest float32
@example(kind="number", value=3.4028235677973366e38)
def test_any_value_is_accepted_unchanged_by_a_second_check_or_is_a_bad_row(kind, value):
    # what a column refers to comes first
    columns = dict(reversed(COLUMNS[kind].items()))
    row = {"c": value, "text": TEXT, "words": WORDS}
    record = check(row, columns)
    if isinstance(record, BadRow):
        assert record.reason
        assert "\n" not in str(record)
    else:
        assert check({**row, "c": record["x"]}, columns) == record
