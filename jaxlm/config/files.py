"""Configurations as files: a JSON round trip for run folders, Python files for people, differences between two."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxlm.config import upgrade
from jaxlm.config.run import RunConfig
from jaxlm.config.task import TaskConfig

VERSION = 2

# classes of task settings by the name that a file has for them
Tasks = Mapping[str, type[TaskConfig]]


def to_dict(config: Any) -> Any:
    """Plain JSON values; every dataclass carries its class name as `class`, which unions are read back by."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"class": type(config).__name__, **fields}
    if isinstance(config, (tuple, list)):
        return [to_dict(x) for x in config]
    return config


def from_dict(
    cls: Any, value: Any, where: str = "", tasks: Tasks = types.MappingProxyType({})
) -> Any:
    """The inverse of `to_dict` for the annotated type `cls`; `tasks` are the classes that a task may have.

    Raises:
        ValueError: an unknown field or class, or a value of another type; the message names the dotted field.
    """
    origin = typing.get_origin(cls)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(cls), value, where, tasks)
    if cls is TaskConfig:
        return _from_union(tuple(tasks.values()), value, where, tasks)
    if dataclasses.is_dataclass(cls):
        return _from_fields(cls, value, where, tasks)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: {value!r} is not a list")
        item = typing.get_args(cls)[0]
        return tuple(from_dict(item, x, f"{where}[{i}]", tasks) for i, x in enumerate(value))
    if origin is typing.Literal:
        allowed = typing.get_args(cls)
        if value not in allowed:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, allowed))}")
        return value
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if cls in (int, float, str, bool) and (
        not isinstance(value, cls) or (isinstance(value, bool) and cls is not bool)
    ):
        raise ValueError(f"{where}: {value!r} is not of type {cls.__name__}")
    return value


def _from_union(options: tuple, value: Any, where: str, tasks: Tasks) -> Any:
    if value is None:
        if type(None) in options:
            return None
        raise ValueError(f"{where}: a value is missing")
    classes: dict[str, Any] = {
        c.__name__: c for c in options if isinstance(c, type) and dataclasses.is_dataclass(c)
    }
    if classes and isinstance(value, dict):
        name = value.get("class", "") if len(classes) > 1 else next(iter(classes))
        if not isinstance(name, str) or name not in classes:
            raise ValueError(f"{where}.class: {name!r} is not one of {', '.join(classes)}")
        return from_dict(classes[name], value, where, tasks)
    rest = [c for c in options if c is not type(None)]
    if not rest or dataclasses.is_dataclass(rest[0]):
        raise ValueError(f"{where}: {value!r} is not an object with a class")
    return from_dict(rest[0], value, where, tasks)


def _from_fields(cls: Any, value: Any, where: str, tasks: Tasks) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or cls.__name__}: {value!r} is not an object with fields")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    given = {k: v for k, v in value.items() if k not in ("class", "version")}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise ValueError(f"{_join(where, name)}: no such field of {cls.__name__}{hint}")
    fields = {k: from_dict(hints[k], v, _join(where, k), tasks) for k, v in given.items()}
    for field in dataclasses.fields(cls):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in fields:
            raise ValueError(f"{_join(where, field.name)}: this field of {cls.__name__} is missing")
    return cls(**fields)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def save(config: Any, path: str | pathlib.Path) -> None:
    """Writes the config as JSON with the version of the format."""
    text = json.dumps({"version": VERSION, **to_dict(config)}, indent=2, ensure_ascii=False)
    pathlib.Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | pathlib.Path, *classes: type, tasks: Tasks) -> Any:
    """Reads a config that `save` wrote, of this version or an older one; its `class` chooses among the classes."""
    path = pathlib.Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ValueError(f"{path}: no such file; is it the folder of a run?") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not a JSON file: {e}") from e
    return parse(value, *classes, where=str(path), tasks=tasks)


def parse(value: Any, *classes: type, where: str, tasks: Tasks) -> Any:
    """The config in a JSON object that carries `version` and `class`; `where` stands before every error."""
    version = value.get("version") if isinstance(value, dict) else None
    if version not in (1, VERSION):
        raise ValueError(
            f"{where}: config version {version!r} is not one that this jaxlm reads (1 to {VERSION})"
        )
    if version == 1:
        value = upgrade.from_version_1(value)
    by_name = {c.__name__: c for c in classes}
    if value.get("class") not in by_name:
        raise ValueError(f"{where}: a {value.get('class')}, but a {' or '.join(by_name)} is needed")
    try:
        return from_dict(by_name[value["class"]], value, tasks=tasks)
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e


def load_python(path: str | pathlib.Path) -> Any:
    """Runs a config file and returns what its `get_config()` gives, named after the file if it has no name."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such config file")
    if path.suffix == ".json":
        raise ValueError(f"{path}: a config is a Python file with get_config(); see configs/")
    spec = importlib.util.spec_from_file_location(f"jaxlm_config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ValueError(f"{path}: has no function get_config()")
        config = module.get_config()
    except ValueError:
        raise
    except Exception as e:
        raise ValueError(f"{path}: {type(e).__name__}: {e}") from e
    if not isinstance(config, RunConfig):
        raise ValueError(
            f"{path}: get_config() gives {type(config).__name__}, not a TrainConfig or FinetuneConfig"
        )
    return config if config.name else dataclasses.replace(config, name=path.stem)


def differences(old: Any, new: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two configs (or the dicts of `to_dict`) differ: {field: (old value, new value)}."""
    old = to_dict(old) if dataclasses.is_dataclass(old) else old
    new = to_dict(new) if dataclasses.is_dataclass(new) else new
    if isinstance(old, dict) and isinstance(new, dict):
        result: dict[str, tuple[Any, Any]] = {}
        for name in dict.fromkeys([*old, *new]):
            result |= differences(old.get(name), new.get(name), _join(where, name))
        return result
    return {} if old == new else {where: (old, new)}
