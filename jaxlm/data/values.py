"""The kinds of values that a task reads, and the validation of each.

Each kind has one function, which returns the value in a form that is the same for all file formats, or raises `Refused`
with the reason and what was expected.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import numpy as np

from jaxlm.data.bad_rows import EMPTY_TEXT, BadRow

Kind = Literal[
    "text",
    "label",
    "labels",
    "number",
    "numbers",
    "words",
    "tags",
    "spans",
    "answers",
    "messages",
]

# expected type of a value, for error messages
EXPECTED: dict[Kind, str] = {
    "text": "a string",
    "label": "a string or a whole number",
    "labels": "a list of labels",
    "number": "a number",
    "numbers": "a list of numbers",
    "words": "a list of words",
    "tags": "a list of tags",
    "spans": 'a list of {"start": int, "end": int, "label": string}',
    "answers": '{"text": [string, ...], "answer_start": [int, ...]}',
    "messages": 'a list of {"role": string, "content": string}',
}
_ROLES = ("system", "user", "assistant", "tool")
# what other formats call them
_OTHER_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant"}
_OTHER_ROLES |= {"model": "assistant", "ai": "assistant", "function": "tool", "developer": "system"}


class Refused(Exception):
    """Raised by the checks of a value; carries the BadRow."""

    def __init__(self, row: BadRow):
        super().__init__(row)
        self.row = row


def refuse(reason: str, detail: str = "") -> NoReturn:
    """Raises Refused."""
    raise Refused(BadRow(reason, detail))


def check_value(kind: Kind, value: Any, column: str, over: Any) -> Any:
    """The checked value of a column, with the value `over` of the column that it refers to.

    Raises:
        Refused: the value is not of this kind.
    """
    return _CHECKS[kind](value, column, over)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _type_of(value: Any) -> str:
    return f"{_shorten(value)} is of type {type(value).__name__}"


def _is_int(value: Any) -> bool:
    # bool is a subclass of int
    return isinstance(value, int) and not isinstance(value, bool)


def _is_blank(value: str) -> bool:
    return not value or value.isspace()


def _valid_text(value: str, column: str) -> str:
    """Returns the string if it can be encoded as UTF-8 and has no NUL character."""
    if "\0" in value:
        refuse(f"NUL character in column {column!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(
            f"lone surrogate in column {column!r}",
            "half of a surrogate pair, which is not valid text",
        )
    return value


def _require_type(kind: Kind, value: Any, wanted: type, column: str) -> None:
    if not isinstance(value, wanted):
        refuse(f"column {column!r} is not {EXPECTED[kind]}", _type_of(value))


def _text(value: Any, column: str, over: None) -> str:
    _require_type("text", value, str, column)
    if _is_blank(value):
        raise Refused(EMPTY_TEXT)
    return _valid_text(value, column)


def _label(value: Any, column: str, over: None) -> str:
    if _is_int(value):
        value = str(value)
    _require_type("label", value, str, column)
    if _is_blank(value):
        refuse(f"empty label in column {column!r}", f"expected {EXPECTED['label']}")
    return _valid_text(value, column).strip()


def _names(kind: Kind, values: Any, column: str) -> list[str]:
    """The labels or tags in a list, with integers converted to strings."""
    _require_type(kind, values, list, column)
    one = kind[:-1]
    names = []
    for i, value in enumerate(values, 1):
        if _is_int(value):
            value = str(value)
        if not isinstance(value, str):
            reason = f"{one} in column {column!r} is not {EXPECTED['label']}"
            refuse(reason, f"item {i} of {len(values)}: {_type_of(value)}")
        if _is_blank(value):
            reason = f"empty {one} in column {column!r}"
            refuse(reason, f"item {i} of {len(values)}; expected {EXPECTED['label']}")
        names.append(_valid_text(value, column).strip())
    return names


def _labels(value: Any, column: str, over: None) -> list[str]:
    names = _names("labels", value, column)
    duplicate = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if duplicate is not None:
        detail = f"{_shorten(duplicate)}; expected each label at most once"
        refuse(f"duplicate label in column {column!r}", detail)
    return names


def _number(value: Any, column: str, over: None) -> float:
    if not _is_int(value) and not isinstance(value, float):
        refuse(f"column {column!r} is not {EXPECTED['number']}", _type_of(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(f"column {column!r} is not a finite number", _shorten(value))
    if abs(number) > float(np.finfo(np.float32).max):
        refuse(f"column {column!r} is too large a number", _shorten(value))
    return number


def _numbers(value: Any, column: str, over: None) -> np.ndarray:
    """The numbers as float32 [d]; rows of array files are arrays already."""
    if not isinstance(value, np.ndarray):
        _require_type("numbers", value, list, column)
        value = np.array([_number(x, column, over) for x in value])
    with np.errstate(over="ignore"):
        numbers = value.astype(np.float32)
    infinite = np.flatnonzero(~np.isfinite(numbers))
    if len(infinite):
        i = infinite[0]
        detail = f"item {i + 1} of {len(numbers)} is {value[i]}"
        refuse(f"column {column!r} has a number that is not finite", detail)
    return numbers


def _words(value: Any, column: str, over: None) -> list[str]:
    _require_type("words", value, list, column)
    for i, word in enumerate(value, 1):
        where = f"item {i} of {len(value)}"
        if not isinstance(word, str):
            refuse(f"word in column {column!r} is not a string", f"{where}: {_type_of(word)}")
        if _is_blank(word):
            refuse(
                f"empty word in column {column!r}",
                f"{where}; expected strings that are not only whitespace",
            )
        _valid_text(word, column)
    if not value:
        raise Refused(EMPTY_TEXT)
    return value


def _tags(value: Any, column: str, words: list[str]) -> list[str]:
    tags = _names("tags", value, column)
    if len(tags) != len(words):
        refuse(
            f"number of tags in column {column!r} does not match the number of words",
            f"{len(tags)} tags for {len(words)} words, expected one tag for each word",
        )
    return tags


def _spans(value: Any, column: str, text: str) -> list[dict[str, Any]]:
    _require_type("spans", value, list, column)
    spans = [
        _span(span, column, text, f"item {i} of {len(value)}") for i, span in enumerate(value, 1)
    ]
    spans.sort(key=lambda span: (span["start"], span["end"], span["label"]))
    for before, span in itertools.pairwise(spans):
        if span == before:
            detail = f"{_shorten(span)}; expected each span once"
            refuse(f"duplicate span in column {column!r}", detail)
    return spans


def _span(span: Any, column: str, text: str, where: str) -> dict[str, Any]:
    wanted = {"start": "a whole number", "end": "a whole number", "label": EXPECTED["label"]}
    if not isinstance(span, dict):
        reason = f"span in column {column!r} is not an object"
        refuse(reason, f"{where}: {_type_of(span)}; expected {', '.join(wanted)}")
    for key, kind in wanted.items():
        if key not in span:
            has = ", ".join(map(str, span)) or "nothing"
            refuse(f"span without {key} in column {column!r}", f"{where}; it has: {has}")
        if not (_is_int(span[key]) or (key == "label" and isinstance(span[key], str))):
            reason = f"{key} of a span in column {column!r} is not {kind}"
            refuse(reason, f"{where}: {_type_of(span[key])}")
    start, end = span["start"], span["end"]
    if not 0 <= start < end <= len(text):
        refuse(
            f"span out of range in column {column!r}",
            f"{where} has start {start} and end {end}, expected 0 <= start < end <= {len(text)}, "
            "the characters of the text",
        )
    # many data sets include the span's text: a mismatch reveals byte offsets or an off-by-one error
    if span.get("text") not in (None, text[start:end]):
        refuse(
            f"text of a span in column {column!r} does not match its offsets",
            f"{where} has text {_shorten(span['text'])}, "
            f"but characters {start} to {end} are {_shorten(text[start:end])}",
        )
    return {"start": start, "end": end, "label": _label(span["label"], column, None)}


def _answers(value: Any, column: str, context: str) -> dict[str, list]:
    _require_type("answers", value, dict, column)
    for key in ("text", "answer_start"):
        if not isinstance(value.get(key), list):
            detail = _type_of(value[key]) if key in value else f"no {key}"
            refuse(f"column {column!r} is not {EXPECTED['answers']}", detail)
    texts, starts = value["text"], value["answer_start"]
    if len(texts) != len(starts):
        refuse(
            f"number of texts in column {column!r} does not match the number of answer_starts",
            f"{len(texts)} texts and {len(starts)} answer_starts",
        )
    for i, (text, start) in enumerate(zip(texts, starts), 1):
        where = f"item {i} of {len(texts)}"
        if not isinstance(text, str) or not text:
            detail = f"{where}: {_shorten(text)}; an unanswerable question has empty lists"
            refuse(f"answer in column {column!r} is not a non-empty string", detail)
        if not _is_int(start):
            reason = f"answer_start in column {column!r} is not a whole number"
            refuse(reason, f"{where}: {_type_of(start)}")
        actual = context[start : start + len(text)] if start >= 0 else ""
        if actual != text:
            refuse(
                f"answer in column {column!r} is not at its answer_start",
                f"{where}: expected {_shorten(text)} at character {start} of the context, "
                f"which has {_shorten(actual)} there; {_where(text, context, start)}",
            )
    return {"text": list(texts), "answer_start": list(starts)}


def _where(text: str, context: str, start: int) -> str:
    """Where an answer is in its context, nearest to where it should be."""
    after, before = context.find(text, max(start, 0)), context.rfind(text, 0, max(start, 0))
    found = [i for i in (before, after) if i >= 0]
    if not found:
        return "it is nowhere in the context"
    return f"it is at character {min(found, key=lambda i: abs(i - start))}"


def _messages(value: Any, column: str, over: None) -> list[dict[str, Any]]:
    _require_type("messages", value, list, column)
    if not value:
        refuse(f"no message in column {column!r}", "expected at least one")
    return [
        _message(message, column, f"item {i} of {len(value)}") for i, message in enumerate(value, 1)
    ]


def _message(message: Any, column: str, where: str) -> dict[str, Any]:
    """A validated message; an assistant message with tool calls may have no content, which becomes an empty string."""
    if not isinstance(message, dict):
        reason = f"message in column {column!r} is not an object"
        refuse(reason, f"{where}: {_type_of(message)}; expected role, content")
    for key in ("role", "content"):
        if key not in message:
            has = ", ".join(map(str, message)) or "nothing"
            refuse(f"message without {key} in column {column!r}", f"{where}; it has: {has}")
    role, content = message["role"], message["content"]
    if role not in _ROLES:
        refuse(
            f"unknown role of a message in column {column!r}",
            f"{where}: {_shorten(role)}, expected {', '.join(_ROLES)}{_near_role(role)}",
        )
    calls_tools = role == "assistant" and bool(message.get("tool_calls"))
    if content is None and calls_tools:
        content = ""
    if not isinstance(content, str):
        reason = f"content of a message in column {column!r} is not a string"
        refuse(reason, f"{where}: {_type_of(content)}")
    if _is_blank(content) and not calls_tools:
        refuse(
            f"empty message in column {column!r}",
            f"{where}, role {role}; expected text (only an assistant message with tool_calls may have none)",
        )
    return {**message, "content": _valid_text(content, column)}


def _near_role(role: Any) -> str:
    if not isinstance(role, str):
        return ""
    name = role.strip().lower()
    near = [_OTHER_ROLES[name]] if name in _OTHER_ROLES else []
    near += difflib.get_close_matches(name, _ROLES, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


# kind -> the check of a value: (value, name of the column, value of the column that it refers to) -> checked value
_CHECKS: dict[Kind, Callable[[Any, str, Any], Any]] = {
    "text": _text,
    "label": _label,
    "labels": _labels,
    "number": _number,
    "numbers": _numbers,
    "words": _words,
    "tags": _tags,
    "spans": _spans,
    "answers": _answers,
    "messages": _messages,
}
