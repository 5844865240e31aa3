"""The types and the widest ranges of values in config classes: Python checks neither.

A config that is made in Python must be refused for the same values as one from a file or from the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Hashable
from typing import Any, cast

# whole numbers are counted in int32 by the training step; of a seed JAX takes 32 bits and cuts off more
MOST = 2**31 - 1
MOST_SEED = 2**32 - 1
_BITS = {"seed": 32, "noise_seed": 63}
# far above every sensible number, and far below where float32 ends
_LARGEST = 1e15


def check_values(config: Any, where: str = "") -> None:
    """Checks type and range of every field of a config class, and of the config classes in it.

    Raises:
        ValueError: a value has another type than the field, is not finite, or is absurdly large; the message has the
            dotted name of the field, which begins with `where`.
    """
    for name, kind in _hints(cast(Hashable, type(config))).items():
        full = f"{where}.{name}" if where else name
        _check(kind, getattr(config, name), full)


def check_at_least(config: Any, where: str, least: float, *names: str) -> None:
    """Raises ValueError for a field that is set and below `least`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            bound = "not be negative" if least == 0 else f"be at least {least}"
            raise ValueError(f"{where}{name}={value} must {bound}")


def check_positive(config: Any, where: str, *names: str) -> None:
    """Raises ValueError for a field that is set and not positive."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"{where}{name}={value} must be positive")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _check(kind: Any, value: Any, where: str) -> None:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        _check_union(parts, value, where)
    elif origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ValueError(f"{where} is {_shown(value)}, not a tuple: write ({value!r},)")
        for i, item in enumerate(value):
            _check(parts[0] if parts[-1] is ... else parts[i], item, f"{where}[{i}]")
    elif origin is typing.Literal:
        if not any(value == part and type(value) is type(part) for part in parts):
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, parts))}")
    elif dataclasses.is_dataclass(kind):
        cls = cast(type, kind)
        if not isinstance(value, cls):
            raise ValueError(f"{where} is {_shown(value)}, not a {cls.__name__}")
        check_values(value, where)
    elif kind in (int, float, str, bool):
        _check_plain(kind, value, where)


def _check_union(parts: tuple[Any, ...], value: Any, where: str) -> None:
    if value is None and type(None) in parts:
        return
    rest = [part for part in parts if part is not type(None)]
    if len(rest) == 1:
        _check(rest[0], value, where)
        return
    for part in rest:
        if not dataclasses.is_dataclass(part) or isinstance(value, cast(type, part)):
            _check(part, value, where)
            return
    names = " or ".join(part.__name__ for part in rest)
    raise ValueError(f"{where} is {_shown(value)}, not a {names}")


def _check_plain(kind: type, value: Any, where: str) -> None:
    allowed: Any = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        hint = ""
        if kind is int and isinstance(value, float) and value.is_integer():
            hint = f": write {int(value)}"
        elif not isinstance(value, (bool, str)) and type(value).__module__ == "numpy":
            hint = f": write {kind.__name__}(...)"
        raise ValueError(f"{where}: {value!r} is not of type {kind.__name__}{hint}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where}={value} is not a finite number")
    if kind is float and abs(value) > _LARGEST:
        raise ValueError(f"{where}={value} is out of range: numbers are at most {_LARGEST:g}")
    bits = _BITS.get(where.rpartition(".")[2], 31)
    if kind is int and abs(value) >= 2**bits:
        bound = f"not be below -2^{bits}" if value < 0 else f"be below 2^{bits}"
        raise ValueError(f"{where}={value} must {bound}")


def _shown(value: Any) -> str:
    return f"the text {value!r}" if isinstance(value, str) else repr(value)
