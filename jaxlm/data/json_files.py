"""Rows of JSON files: one object per line, an array of objects, or the nested format of SQuAD."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from jaxlm.config.data import DataConfig
from jaxlm.config.json_text import DECODER, DuplicateKeyError, fault
from jaxlm.data.bad_rows import NOT_UTF8, UNDECODED, BadRow, is_undecoded
from jaxlm.data.columns import Column

Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]

_WHITESPACE = re.compile(r"[ \t\n\r]*")


def decode(text: str) -> Any:
    """Parses a text as JSON; returns a BadRow if it is invalid."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        return BadRow("broken JSON", fault(e))


def read_lines(
    file: Iterable[str], path: str, config: DataConfig, columns: Mapping[str, Column]
) -> Rows:
    """One object per line."""
    for line_number, line in enumerate(file, 1):
        if line.isspace():
            continue
        if is_undecoded(line):
            yield line_number, NOT_UTF8
            continue
        value = decode(line)
        yield line_number, value if isinstance(value, BadRow) else _object(value)


def read_json(file: TextIO, path: str, config: DataConfig, columns: Mapping[str, Column]) -> Rows:
    """An array of objects, or a SQuAD object; any other file is read as one object per line."""
    text = file.read()
    offset = _skip_whitespace(text, 0)
    if text[offset : offset + 1] == "[":
        yield from _read_array(text, offset)
    elif (articles := _squad_articles(text, columns)) is not None:
        if is_undecoded(text):
            yield 1, NOT_UTF8
        else:
            # such files have a single line, so number the rows instead
            yield from enumerate(_read_squad(articles), 1)
    else:
        yield from read_lines(io.StringIO(text), path, config, columns)


def _read_array(text: str, offset: int) -> Rows:
    """The objects of the array that begins at an offset, each with its line number."""
    line, counted = 1, 0
    offset = _skip_whitespace(text, offset + 1)
    ended = text[offset : offset + 1] == "]"
    while not ended:
        line, counted = line + text.count("\n", counted, offset), offset
        try:
            row, offset = _decode_item(text, offset)
        except (ValueError, RecursionError) as e:
            yield line, BadRow("broken JSON", f"{fault(e)}; the rest of the file is not read")
            return
        yield line, NOT_UTF8 if UNDECODED.search(text, counted, offset) else row
        offset = _skip_whitespace(text, offset)
        sign = text[offset : offset + 1]
        if sign not in (",", "]"):
            detail = "expected , or ] after this row; the rest of the file is not read"
            yield line, BadRow("broken JSON", detail)
            return
        ended = sign == "]"
        if not ended:
            offset = _skip_whitespace(text, offset + 1)
    rest = _skip_whitespace(text, offset + 1)
    if rest < len(text):
        line += text.count("\n", counted, rest)
        detail = "text after the end of the array; expected one array per file"
        yield line, BadRow("broken JSON", detail)


def _decode_item(text: str, offset: int) -> tuple[dict[str, Any] | BadRow, int]:
    """The row that begins at an offset, and where it ends."""
    try:
        value, end = DECODER.raw_decode(text, offset)
    except DuplicateKeyError as e:
        # the syntax is valid: continue after this row
        return BadRow("broken JSON", str(e)), json.JSONDecoder().raw_decode(text, offset)[1]
    return _object(value), end


def _skip_whitespace(text: str, offset: int) -> int:
    match = _WHITESPACE.match(text, offset)
    assert match
    return match.end()


def _object(value: Any) -> dict[str, Any] | BadRow:
    if isinstance(value, dict):
        return value
    return BadRow("not a JSON object", f"a row is {{...}}, this one is of type {_type(value)}")


def _type(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _squad_articles(text: str, columns: Mapping[str, Column]) -> list | None:
    """The articles, if the text is one object with a list "data" and not a row with the requested columns."""
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        return None
    return None if any(column.name in value for column in columns.values()) else value["data"]


def _read_squad(articles: list) -> Iterator[dict[str, Any] | BadRow]:
    """One row per question: id, title, context, question, answers, and is_impossible (Rajpurkar et al. 2018).

    `title`, `answers` and `is_impossible` are missing where the file lacks them.
    """
    for i, article in enumerate(articles):
        where = f"data[{i}]"
        paragraphs = _squad_items(article, "paragraphs", where)
        if isinstance(paragraphs, BadRow):
            yield paragraphs
            continue
        for j, paragraph in enumerate(paragraphs):
            inner = f"{where}.paragraphs[{j}]"
            questions = _squad_items(paragraph, "qas", inner)
            if isinstance(questions, BadRow):
                yield questions
            elif "context" not in paragraph:
                yield _not_squad(inner, "has no context")
            else:
                shared = {key: article[key] for key in ("title",) if key in article}
                shared["context"] = paragraph["context"]
                for k, question in enumerate(questions):
                    yield _squad_row(shared, question, f"{inner}.qas[{k}]")


def _not_squad(where: str, fault: str) -> BadRow:
    return BadRow("not in the format of SQuAD", f"{where} {fault}")


def _squad_items(value: Any, key: str, where: str) -> list | BadRow:
    """The list under a key of an object."""
    if not isinstance(value, dict):
        return _not_squad(where, f"is of type {_type(value)}, expected an object with {key}")
    if key not in value:
        return _not_squad(where, f"has no {key}, expected a list")
    if not isinstance(value[key], list):
        return _not_squad(where, f"has {key} of type {_type(value[key])}, expected a list")
    return value[key]


def _squad_row(shared: dict[str, Any], question: Any, where: str) -> dict[str, Any] | BadRow:
    """The row of a question of a paragraph with a title and a context."""
    if not isinstance(question, dict):
        wanted = "an object with id, question and answers"
        return _not_squad(where, f"is of type {_type(question)}, expected {wanted}")
    row = shared | {k: question[k] for k in ("id", "question", "is_impossible") if k in question}
    answers = question.get("answers")
    if answers is None:
        return row
    if not isinstance(answers, list):
        return _not_squad(where, f"has answers of type {_type(answers)}, expected a list")
    for i, answer in enumerate(answers):
        if not isinstance(answer, dict) or not {"text", "answer_start"} <= answer.keys():
            fault = f"has answers[{i}] {str(answer)[:40]}, expected text and answer_start"
            return _not_squad(where, fault)
    impossible = row.get("is_impossible")
    if impossible is not None and impossible is not (not answers):
        fault = f"has is_impossible {impossible!r} and {len(answers)} answers, which contradict each other"
        return _not_squad(where, fault)
    row["answers"] = {key: [a[key] for a in answers] for key in ("text", "answer_start")}
    return row
