"""JSON files of people and programs: read strictly, with errors that say in plain words what is wrong and where."""

from __future__ import annotations

import json
import pathlib
from typing import Any

# what Python says -> what is wrong
_WORDS = {
    "Expecting value": "a value is missing",
    "Extra data": "text after the end",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Illegal trailing comma before end of object": "a comma before the end of an object",
    "Illegal trailing comma before end of array": "a comma before the end of an array",
    "Expecting ',' delimiter": "a comma is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Unterminated string starting at": "a text has no end",
    "Invalid control character at": "a line end or another control character in a text",
}


class DuplicateKeyError(ValueError):
    """A key occurs twice in one object."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises for a duplicate key, of which Python would silently keep the last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise DuplicateKeyError(f"duplicate key {duplicate[:40]!r} in an object")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def fault(e: Exception, with_line: bool = False) -> str:
    """What an error of the decoder means, with the column or, for a whole file, line and column."""
    if isinstance(e, json.JSONDecodeError):
        where = f"line {e.lineno}, column {e.colno}" if with_line else f"column {e.colno}"
        return f"{_WORDS.get(e.msg, e.msg)} ({where})"
    if isinstance(e, RecursionError):
        return "nested too deeply"
    # of a number, Python tells how to raise the limit in a program
    return str(e).split("; use sys.")[0]


def read(path: str | pathlib.Path) -> Any:
    """The value in a file.

    Raises:
        ValueError: the file cannot be read or holds no JSON, or an object has a key twice; one line with the path.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as e:
        raise ValueError(f"{path}: cannot be read: {e.strerror}") from e
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}: UTF-16, not UTF-8: convert it, for instance with iconv")
    if not content.strip():
        raise ValueError(f"{path}: empty: write or copy it again")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8 (byte {e.start + 1:,})") from e
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not a JSON file: {fault(e, with_line=True)}") from e


def read_object(path: str | pathlib.Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ValueError: see `read`, or the file holds another value.
    """
    value = read(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object")
    return value


_KINDS = {str: "a string", int: "an integer", dict: "an object", list: "a list"}


def member(value: Any, name: str, kind: type, path: pathlib.Path, *, least: int = 0) -> Any:
    """A member of an object that was read from a file, of one of the types str, int (of at least `least`), dict, list.

    Args:
        value: the object.
        name: of the member; the last part of a dotted name, which is told as a whole.
        kind: its type.
        path: the file, for messages.
        least: of an integer.

    Raises:
        ValueError: there is none, or it is of another type; the message names file and member.
    """
    key = name.rsplit(".", 1)[-1]
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{path}: lacks {name}: write or copy it again")
    found = value[key]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{path}: {name} is {str(found)[:40]!r}, not {_KINDS[kind]}")
    if isinstance(found, int) and found < least:
        raise ValueError(f"{path}: {name}={found} must be at least {least}")
    return found
