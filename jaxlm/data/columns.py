"""Typed columns: what a task reads from a row.

`check` converts a row of a file to the record that a task receives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxlm.data.bad_rows import EMPTY_TEXT, BadRow
from jaxlm.data.values import EXPECTED, Kind, Refused, check_value, refuse

# role -> value, and "id", the source of the row (file and line)
Record = dict[str, Any]

# kinds that refer to another column, and the kind of that column
_REFERRED_KINDS: dict[Kind, Kind] = {"tags": "words", "spans": "text", "answers": "text"}
# kinds that have a text
_TEXTUAL: tuple[Kind, ...] = ("text", "words", "messages")
# kinds by whose values rows are compared
IDENTIFYING: tuple[Kind, ...] = (*_TEXTUAL, "numbers")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column that a task reads.

    Raises:
        ValueError: `over` is missing for tags, spans or answers, or given for another kind.
    """

    # name of the column in the file
    name: str
    kind: Kind
    # False: may be missing (targets when predicting); the value is then None
    required: bool = True
    # role of the column that this one refers to: the words for tags, the text for spans and answers
    over: str | None = None
    # option that sets `name`, for messages; None: one of the `data.*_column` options, or none
    option: str | None = None

    def __post_init__(self):
        if self.kind not in EXPECTED:
            raise ValueError(
                f"column {self.name!r}: unknown kind {self.kind!r}; known: {', '.join(EXPECTED)}"
            )
        if self.kind in _REFERRED_KINDS and self.over is None:
            raise ValueError(
                f"column {self.name!r}: set over to the role of the {_REFERRED_KINDS[self.kind]} column "
                f"that the {self.kind} belong to"
            )
        if self.kind not in _REFERRED_KINDS and self.over is not None:
            raise ValueError(
                f"column {self.name!r}: over={self.over!r} has no effect on kind {self.kind!r}"
            )


def stored_name(name: str, has: Collection[str]) -> str:
    """The column of a file that holds a column of a task: `translation` for `translation.de`, the field `de` of its
    objects, unless the file has a column of the whole name."""
    return name if name in has else name.partition(".")[0]


def stored_names(columns: Mapping[str, Column], has: Collection[str]) -> set[str]:
    """The columns of a file that a task reads."""
    return {stored_name(column.name, has) for column in columns.values()} & set(has)


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a field of an object in it (see `stored_name`); None if there is none."""
    if name in row or "." not in name:
        return row.get(name)
    stored, _, rest = name.partition(".")
    inner = row.get(stored)
    return value_of(inner, rest) if isinstance(inner, Mapping) else None


def check_roles(columns: Mapping[str, Column]) -> None:
    """Checks that the columns of a task are consistent.

    Raises:
        ValueError: a role is called "id", or `over` does not name a column of the right kind.
    """
    if "id" in columns:
        raise ValueError("role 'id' is reserved for the source of a row: use another name")
    for role, column in columns.items():
        if column.over is not None:
            other = columns.get(column.over)
            wanted = _REFERRED_KINDS[column.kind]
            if other is None or other.kind != wanted:
                raise ValueError(
                    f"column {role!r}: over={column.over!r} is not a column of kind {wanted!r}; "
                    f"columns: {', '.join(f'{r} ({c.kind})' for r, c in columns.items())}"
                )


def plain_text(value: Any, kind: Kind) -> str | None:
    """The text of a value; None if the kind has no text."""
    if kind == "text":
        return value
    if kind == "words":
        return " ".join(value)
    if kind == "messages":
        return "\n".join(message["content"] for message in value)
    return None


def text_roles(columns: Mapping[str, Column]) -> list[str]:
    """The roles of kinds that have a text: text, words and messages."""
    return [role for role, c in columns.items() if c.kind in _TEXTUAL]


def identity(value: Any, kind: Kind) -> str:
    """A string that is the same for the same value of a kind in `IDENTIFYING`, used to compare rows."""
    text = value.tobytes().hex() if kind == "numbers" else plain_text(value, kind)
    assert text is not None
    return text


def check(row: Mapping[str, Any], columns: Mapping[str, Column]) -> Record | BadRow:
    """The validated values of a row by role, or a BadRow that says what is wrong.

    Columns must come after those that they refer to by `over`. The value of an optional column is None if missing,
    null, or an empty text.
    """
    record: Record = {}
    try:
        for role, column in columns.items():
            value = value_of(row, column.name)
            if value is not None:
                over = None if column.over is None else _referred(record, column, columns)
                record[role] = _check_value(value, column, over)
            elif not column.required:
                record[role] = None
            elif isinstance(inner := row.get(stored_name(column.name, row)), Mapping):
                refuse(f"no {column.name!r}", f"the object has: {', '.join(map(str, inner))}")
            elif stored_name(column.name, row) in row:
                refuse(f"null in column {column.name!r}", f"expected {EXPECTED[column.kind]}")
            else:
                has = ", ".join(str(name)[:40] for name in row) or "none"
                refuse(f"no column {column.name!r}", f"the row has: {has}")
    except Refused as e:
        return e.row
    return record


def _check_value(value: Any, column: Column, over: Any) -> Any:
    try:
        return check_value(column.kind, value, column.name, over)
    except Refused as e:
        # instruction data sets use "" for a missing input
        if e.row == EMPTY_TEXT and not column.required:
            return None
        raise


def _referred(record: Record, column: Column, columns: Mapping[str, Column]) -> Any:
    assert column.over is not None
    value = record[column.over]
    if value is None:
        other = columns[column.over]
        refuse(
            f"column {column.name!r} without column {other.name!r}",
            f"its {column.kind} belong to {EXPECTED[other.kind]} in that column",
        )
    return value
