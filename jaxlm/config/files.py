"""Configurations as files: a JSON round trip for run folders, Python files for people, differences between two."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import inspect
import json
import os
import pathlib
import re
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from jaxlm.config import json_text, upgrade
from jaxlm.config.run import RunConfig
from jaxlm.config.task import TaskConfig
from jaxlm.config.urls import refuse_url

VERSION = 2

# classes of task settings by the name that a file has for them
Tasks = Mapping[str, type[TaskConfig]]
OWN_TASK = (
    "; the commands know only these: for a task of your own call jaxlm.run.restore.restore(run_dir, tasks=[...]) in "
    "Python, then evaluate or predict (docs/extending.md)"
)


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
            hint = f"; put it in brackets: ({value!r},)" if isinstance(value, str) else ""
            raise ValueError(f"{where}: {value!r} is not a list{hint}")
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
            hint = OWN_TASK if options == tuple(tasks.values()) else ""
            raise ValueError(f"{where}.class: {name!r} is not one of {', '.join(classes)}{hint}")
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
    if not path.exists():
        raise ValueError(f"{path}: no such file; is it the folder of a run?")
    value = json_text.read(path)
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
    value = upgrade.without_ignored(value)
    by_name = {c.__name__: c for c in classes}
    if not isinstance(value.get("class"), str) or value["class"] not in by_name:
        raise ValueError(f"{where}: a {value.get('class')}, but a {' or '.join(by_name)} is needed")
    try:
        return from_dict(by_name[value["class"]], value, tasks=tasks)
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e


def check(config: Any) -> None:
    """Checks the type of each value of a config that was made in Python, where nothing else checks it.

    Raises:
        ValueError: a value of another type; the message names the dotted field.
    """
    task = type(config.task)
    from_dict(type(config), to_dict(config), tasks={task.__name__: task})


def load_python(path: str | pathlib.Path, init: str | None = None) -> Any:
    """Runs a config file and returns what its `get_config()` gives, named after the file if it has no name.

    A `get_config(init=...)` gets the `init` of the command line, if there is one, so that the same file can start from
    a pretrained model or from nothing.

    Raises:
        ValueError: it is not such a file, or an error in it; the message names its line.
    """
    refuse_url(path)
    path = pathlib.Path(path)
    config = result_of(path, init)
    if not isinstance(config, RunConfig):
        raise ValueError(
            f"{path}: get_config() gives {type(config).__name__}, not a TrainConfig or FinetuneConfig"
        )
    try:
        check(config)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    return config if config.name else dataclasses.replace(config, name=path.stem)


def result_of(path: pathlib.Path, init: str | None = None) -> Any:
    """What the `get_config()` of a Python file gives.

    Raises:
        ValueError: it is not such a file, or an error in it; the message names its line.
    """
    _check_file(path)
    spec = importlib.util.spec_from_file_location(f"jaxlm_config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        has_config = hasattr(module, "get_config")
        if has_config and not callable(module.get_config):
            raise ValueError(f"get_config is {module.get_config!r}, not a function")
        config = _call(module.get_config, init) if has_config else None
    except (Exception, SystemExit) as e:
        raise ValueError(f"{path}{_line(e, path)}: {_reason(e, module)}") from e
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path}: has no function get_config()")
    return config


def _call(get_config: Callable[..., Any], init: str | None) -> Any:
    takes_init = "init" in inspect.signature(get_config).parameters
    return get_config(init=init) if takes_init and init is not None else get_config()


def _check_file(path: pathlib.Path) -> None:
    """Raises ValueError unless there is a file that may be a Python config."""
    what = "a config is a Python file (.py) with get_config(); see configs/"
    if path.is_dir():
        raise ValueError(f"{path}: a folder; {what}")
    if not path.exists():
        raise ValueError(f"{path}: no such config file")
    if path.suffix != ".py":
        data = "" if path.suffix == ".json" else f"; to train on this file, use --data.train {path}"
        raise ValueError(f"{path}: {what}{data}")


def _line(error: BaseException, path: pathlib.Path) -> str:
    """The line of a config file that an error comes from, as ":12"; empty if it is not known."""
    # of a file that is named relative to the working directory, Python has the whole path
    name = os.path.abspath(path)
    if isinstance(error, SyntaxError) and error.filename == name:
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == name]
    return f":{lines[-1]}" if lines else ""


def _reason(error: BaseException, module: types.ModuleType) -> str:
    """What is wrong in a config file, in a line; of a field that does not exist, the nearest one."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    message = " ".join(str(error).split())
    pattern = r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    if found := re.fullmatch(pattern, message):
        # imported by name, or with its module
        modules = (x for x in vars(module).values() if isinstance(x, types.ModuleType))
        cls = next((c for m in (module, *modules) if (c := getattr(m, found[1], None))), None)
        if isinstance(cls, type) and dataclasses.is_dataclass(cls):
            known = [field.name for field in dataclasses.fields(cls)]
            near = difflib.get_close_matches(found[2], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            return f"{found[2]}: no such field of {found[1]}; {hint}"
    if isinstance(error, SystemExit):
        return "the file ends the program (sys.exit): it has to return a config"
    # errors in values, which the config classes raise, explain themselves
    return message if type(error) is ValueError else f"{type(error).__name__}: {message}"


def differences(old: Any, new: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two configs (or the dicts of `to_dict`) differ: {field: (old value, new value)}.

    An object that is replaced by one of another class, or by nothing, is one difference, and so is a list of another
    length.
    """
    old = to_dict(old) if dataclasses.is_dataclass(old) else old
    new = to_dict(new) if dataclasses.is_dataclass(new) else new
    if isinstance(old, dict) and isinstance(new, dict) and old.get("class") == new.get("class"):
        result: dict[str, tuple[Any, Any]] = {}
        for name in dict.fromkeys([*old, *new]):
            result |= differences(old.get(name), new.get(name), _join(where, name))
        return result
    if _objects(old) and _objects(new) and len(old) == len(new):
        result = {}
        for i, (a, b) in enumerate(zip(old, new)):
            result |= differences(a, b, f"{where}[{i}]")
        return result
    return {} if old == new else {where: (old, new)}


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, dict) for x in value)


def describe_differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """The result of `differences` for people, such as "steps: 10 -> 20", the number of steps first."""
    names = sorted(changed, key=lambda name: name != "steps")
    shown = [f"{name}: {_short(changed[name][0])} -> {_short(changed[name][1])}" for name in names]
    more = [f"and {len(shown) - _MOST:,} more"] if len(shown) > _MOST else []
    return "; ".join([*shown[:_MOST], *more])


# differences and characters of a value that are shown
_MOST, _WIDEST = 8, 60


def _short(value: Any) -> str:
    """A value of a config in a few words: an object by its class, a list of objects by its length."""
    if isinstance(value, dict):
        return str(value.get("class"))
    if value and _objects(value):
        return f"{len(value)} of {value[0].get('class')}"
    text = repr(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
