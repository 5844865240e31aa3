"""Real text that every Python carries: its language reference and its standard library.

`python-docs` is text to pretrain on, about 5 MB: each topic of the language reference, and each module of the standard
library: its source, or its docstrings where the source has more than 30 kB. `python-packages` is text to classify:
which package a docstring comes from, the same number for each. Files are read as text; no module is imported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import pathlib
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple


class Example(NamedTuple):
    """A text with its name and, if there is one, its class."""

    name: str
    text: str
    label: str | None = None


# neither text of the language nor of its library: installed packages, tests, tables, data
_LEFT_OUT = {
    "__phello__",
    "encodings",
    "ensurepip",
    "idlelib",
    "lib-dynload",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "turtledemo",
}
# sources up to this size [bytes] are documents; of longer ones, only the docstrings
_WHOLE = 30_000
# class -> the module or package of the library that documents it (in Python 3.11, 3.12 and 3.13)
_PACKAGES = {
    "asyncio": "asyncio",
    "decimal": "_pydecimal",
    "email": "email",
    "http": "http",
    "importlib": "importlib",
    "logging": "logging",
    "multiprocessing": "multiprocessing",
    "turtle": "turtle",
    "unittest": "unittest",
    "xml": "xml",
}
# docstrings with fewer characters say too little about where they come from
_SHORTEST = 20


@functools.cache
def read(name: str) -> tuple[Example, ...]:
    """The examples of `builtin:<name>`, in a fixed order; read once in a program.

    Raises:
        ValueError: an unknown name, or a Python without the sources of its library.
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    readers = {"python-docs": python_docs, "python-packages": python_packages}
    if name not in readers:
        raise ValueError(f"builtin:{name}: no such corpus; there are {', '.join(readers)}")
    if not _modules(root):
        raise ValueError(f"builtin:{name}: {root} holds no sources of the standard library")
    return tuple(readers[name](root))


def python_docs(root: pathlib.Path) -> Iterator[Example]:
    """The topics of the reference and the modules below `root`, in alphabetical order."""
    topics = root / "pydoc_data" / "topics.py"
    if topics.is_file():
        table = ast.literal_eval(
            next(n.value for n in _parse(topics).body if isinstance(n, ast.Assign))
        )
        for topic in sorted(table):
            yield Example(f"topic {topic}", table[topic])
    for module, path in _modules(root).items():
        if path.stat().st_size <= _WHOLE:
            yield Example(f"module {module}", _text(path))
        else:
            yield Example(f"module {module}", "\n\n".join(text for _, text in _docstrings(path)))


def python_packages(root: pathlib.Path) -> Iterator[Example]:
    """Docstrings of at least 20 characters with their package; no text twice, each package equally often."""
    modules = _modules(root)
    seen = set()
    by_class: dict[str, list[Example]] = {}
    for label, package in _PACKAGES.items():
        by_class[label] = []
        for module, path in modules.items():
            if module.split(".")[0] != package:
                continue
            for line, text in _docstrings(path):
                words = " ".join(text.split())
                if len(words) >= _SHORTEST and words not in seen:
                    seen.add(words)
                    by_class[label].append(Example(f"{module}:{line}", text, label))
    count = min(map(len, by_class.values()))
    for examples in by_class.values():
        # a choice that does not depend on the order of modules
        chosen = sorted(examples, key=lambda e: hashlib.blake2b(e.text.encode()).digest())[:count]
        yield from sorted(chosen)


def _modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Dotted names of the library's modules with their files, in alphabetical order."""
    found = {}
    for folder, below, files in os.walk(root):
        below[:] = [
            name for name in below if name not in _LEFT_OUT and not name.startswith("config-")
        ]
        for name in files:
            path = pathlib.Path(folder, name)
            if path.suffix == ".py" and not name.startswith("_sysconfigdata"):
                dotted = ".".join(path.relative_to(root).with_suffix("").parts)
                found[dotted.removesuffix(".__init__")] = path
    return dict(sorted(found.items()))


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(_text(path))


def _docstrings(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and docstring of the module, its classes and its functions, in the order of the file."""
    waiting: list[ast.stmt | ast.Module] = [_parse(path)]
    found = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), text))
        waiting += [*getattr(node, "body", ()), *getattr(node, "orelse", ())]
    yield from sorted(found)
