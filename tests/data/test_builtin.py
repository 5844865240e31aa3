import collections
import sys

import pytest

from jaxlm.data import builtin


def test_python_docs_are_some_megabytes_of_text():
    examples = builtin.read("python-docs")
    assert 3e6 < sum(len(example.text) for example in examples) < 6e6
    names = [example.name for example in examples]
    assert len(set(names)) == len(names) > 400
    assert "topic if" in names
    assert "module asyncio.tasks" in names
    assert not [
        n for n in names if {"test", "encodings", "site-packages"} & set(n.split()[1].split("."))
    ]


def test_python_packages_are_balanced_and_different():
    examples = builtin.read("python-packages")
    counts = collections.Counter(example.label for example in examples)
    assert len(counts) == 10
    assert len(set(counts.values())) == 1
    assert min(counts.values()) >= 100
    words = [" ".join(example.text.split()) for example in examples]
    assert len(set(words)) == len(words)
    assert min(map(len, words)) >= 20
    assert len({example.name for example in examples}) == len(examples)


def test_reading_imports_no_module():
    before = set(sys.modules)
    builtin.read.__wrapped__("python-packages")
    assert set(sys.modules) == before


LONG = (
    '''"""Module."""
x = 1
if x:
    def f():
        """Function of several words.

        And lines.
        """
class A:
    """Class."""
    async def g(self):
        """Method."""
        return "no docstring"
'''
    + "# comment\n" * 3000
)


@pytest.fixture
def library(tmp_path):
    """A small standard library."""
    files = {
        "pydoc_data/topics.py": "# comment\ntopics = {'while': 'About while.', 'for': 'About for.'}\n",
        "short.py": "x = 1\n",
        "long.py": LONG,
        "package/__init__.py": "y = 2\n",
        "package/inner.py": "z = 3\n",
        "test/test_short.py": "no",
        "site-packages/other/__init__.py": "no",
        "package/tests/a.py": "no",
        "encodings/cp1.py": "no",
        "config-3.11-x86/a.py": "no",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_topics_and_modules_come_in_order_and_long_modules_as_docstrings(library):
    assert [tuple(example) for example in builtin.python_docs(library)] == [
        ("topic for", "About for.", None),
        ("topic while", "About while.", None),
        (
            "module long",
            "Module.\n\nFunction of several words.\n\nAnd lines.\n\nClass.\n\nMethod.",
            None,
        ),
        ("module package", "y = 2\n", None),
        ("module package.inner", "z = 3\n", None),
        ("module short", "x = 1\n", None),
    ]


def test_a_python_without_sources_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="no sources of the standard library in"):
        builtin.read.__wrapped__("python-docs")
