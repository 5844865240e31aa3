"""Text that is part of every Python installation: the language reference and the standard library.

`python-docs` is for pretraining, about 5 MB: each topic of the language reference, and of each module of the standard
library the source, or only its docstrings if the source has more than 30 kB. `python-packages` is for classification:
docstrings labelled with their package, as many for each. Files are read as text; no module is imported.
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
    """A text with its name and, for classification, its label."""

    name: str
    text: str
    label: str | None = None


# folders that are not part of the library: installed packages, tests, tables, data
_SKIPPED_FOLDERS = {
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
# sources up to this size [bytes] are documents; of longer ones only the docstrings are used
_MAX_SOURCE_BYTES = 30_000
# label -> the module or package of the library with its docstrings (in Python 3.11, 3.12 and 3.13)
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
# shorter docstrings [characters] say too little about their package
_MIN_CHARACTERS = 20


@functools.cache
def read(name: str) -> tuple[Example, ...]:
    """The examples of `builtin:<name>`, in a fixed order; cached.

    Raises:
        ValueError: an unknown name, or a Python installation without the sources of its library.
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    readers = {"python-docs": python_docs, "python-packages": python_packages}
    if name not in readers:
        raise ValueError(f"builtin:{name}: no such corpus; known: {', '.join(readers)}")
    if not _modules(root):
        raise ValueError(f"builtin:{name}: no sources of the standard library in {root}")
    return tuple(readers[name](root))


def python_docs(root: pathlib.Path) -> Iterator[Example]:
    """The topics of the language reference and the modules below `root`, in alphabetical order."""
    topics = root / "pydoc_data" / "topics.py"
    if topics.is_file():
        table = ast.literal_eval(
            next(n.value for n in _parse(topics).body if isinstance(n, ast.Assign))
        )
        for topic in sorted(table):
            yield Example(f"topic {topic}", table[topic])
    for module, path in _modules(root).items():
        if path.stat().st_size <= _MAX_SOURCE_BYTES:
            yield Example(f"module {module}", _text(path))
        else:
            yield Example(f"module {module}", "\n\n".join(text for _, text in _docstrings(path)))


def python_packages(root: pathlib.Path) -> Iterator[Example]:
    """Docstrings of at least 20 characters with their package, without duplicates, as many for each package."""
    modules = _modules(root)
    seen = set()
    by_label: dict[str, list[Example]] = {}
    for label, package in _PACKAGES.items():
        by_label[label] = []
        for module, path in modules.items():
            if module.split(".")[0] != package:
                continue
            for line, text in _docstrings(path):
                words = " ".join(text.split())
                if len(words) >= _MIN_CHARACTERS and words not in seen:
                    seen.add(words)
                    by_label[label].append(Example(f"{module}:{line}", text, label))
    count = min(map(len, by_label.values()))
    for examples in by_label.values():
        # chosen by a hash, so that the choice does not depend on the order of modules
        chosen = sorted(examples, key=lambda e: hashlib.blake2b(e.text.encode()).digest())[:count]
        yield from sorted(chosen)


def _modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Dotted name of each module of the library -> its file, in alphabetical order."""
    modules = {}
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in _SKIPPED_FOLDERS and not name.startswith("config-")
        ]
        for name in files:
            path = pathlib.Path(folder, name)
            if path.suffix == ".py" and not name.startswith("_sysconfigdata"):
                dotted = ".".join(path.relative_to(root).with_suffix("").parts)
                modules[dotted.removesuffix(".__init__")] = path
    return dict(sorted(modules.items()))


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(_text(path))


def _docstrings(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and docstring of the module, its classes and its functions, in the order of the file."""
    nodes: list[ast.stmt | ast.Module] = [_parse(path)]
    docstrings = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                docstrings.append((getattr(node, "lineno", 1), text))
        nodes += [*getattr(node, "body", ()), *getattr(node, "orelse", ())]
    yield from sorted(docstrings)
