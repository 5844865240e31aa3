"""Reads JSON objects strictly: a wrong type or an unknown field is refused, naming the field."""

from __future__ import annotations

import difflib
import json
import math
from typing import Any

from jaxlm.config.json_text import unique_keys
from jaxlm.serve.refusal import Refusal, bad_field

_KINDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    return _KINDS[type(value)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is."""
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=unique_keys
        )
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except ValueError as e:
        raise Refusal(400, f"the body is not JSON: {e}") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"the body must be a JSON object, not {kind_of(value)}")
    return value


class Fields:
    """The fields of one object; each is taken once, and `end` refuses what nobody took. null is as good as absent."""

    def __init__(self, value: Any, path: str = ""):
        if not isinstance(value, dict):
            raise bad_field(path, f"must be an object, not {kind_of(value)}")
        self._left = dict(value)
        self._taken: list[str] = []
        self._path = path

    def path(self, name: str) -> str:
        """The full name of a field, as in messages[0].content."""
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str) -> Any:
        """The value of any type."""
        self._taken.append(name)
        return self._left.pop(name, None)

    def wrong(self, name: str, problem: str) -> Refusal:
        """The refusal of a field."""
        return bad_field(self.path(name), problem)

    def require(self, name: str, value: Any) -> Any:
        """The value, which must be there."""
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def text(self, name: str) -> str | None:
        """A text."""
        value = self.take(name)
        return None if value is None else check_text(self.path(name), value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, f"must be true or false, not {kind_of(value)}")
        return value

    def whole(self, name: str, low: int, high: int | None = None) -> int | None:
        """A whole number; 3.0 is one."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, f"must be a whole number, not {_shown(value)}")
        self._check_range(name, value, low, high)
        return value

    def number(self, name: str, low: float, high: float | None = None) -> float | None:
        """A finite number."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, f"must be a number, not {kind_of(value)}")
        self._check_range(name, value, low, high)
        value = float(value)
        if not math.isfinite(value):
            raise self.wrong(name, "must be finite")
        return value

    def _check_range(self, name: str, value: float, low: float, high: float | None) -> None:
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise self.wrong(name, f"must be {limits}, not {_shown(value)}")

    def choice(self, name: str, options: tuple[str, ...]) -> str | None:
        """One of several words."""
        value = self.take(name)
        if value is not None and (not isinstance(value, str) or value not in options):
            raise self.wrong(name, f"must be one of {', '.join(options)}, not {_shown(value)}")
        return value

    def object(self, name: str) -> Fields | None:
        """The fields of an object."""
        value = self.take(name)
        return None if value is None else Fields(value, self.path(name))

    def objects(self, name: str) -> list[Fields] | None:
        """The fields of each object of a list."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(name, f"must be a list, not {kind_of(value)}")
        return [Fields(item, f"{self.path(name)}[{i}]") for i, item in enumerate(value)]

    def absent(self, name: str, why: str, neutral: tuple[Any, ...] = ()) -> None:
        """Refuses a field that would change the answer in a way that is not offered."""
        value = self.take(name)
        if value is not None and value not in neutral:
            raise self.wrong(name, why)

    def end(self) -> None:
        """Refuses unknown fields."""
        for name, value in self._left.items():
            if value is None:
                continue
            near = difflib.get_close_matches(name[:100], self._taken, 1, cutoff=0.75)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise self.wrong(name[:100], f"is not a field that this server knows{hint}")


def check_text(path: str, value: Any) -> str:
    """The text, which must be valid Unicode."""
    if not isinstance(value, str):
        raise bad_field(path, f"must be a text, not {kind_of(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise bad_field(path, "is not valid Unicode: it has a lone surrogate") from None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "..."
