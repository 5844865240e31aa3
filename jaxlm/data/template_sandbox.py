"""A Jinja environment for chat templates, which are programs of strangers: as in transformers, and with bounded work.

The sandbox of jinja2 keeps a template from the interpreter's internals, but not from looping for hours or from filling
the memory. Here loops and calls are counted, there is a deadline, and texts that grow too long are refused.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# of one rendering: steps of loops and calls, seconds, characters of any one text
MAX_STEPS, MAX_SECONDS, MAX_CHARACTERS = 300_000, 10.0, 20_000_000


def environment() -> Any:
    """The environment; templates are compiled by its `from_string`, and rendered under `limits()`.

    Raises:
        ValueError: jinja2 is not installed, or too old to be safe.
    """
    return _environment()()


@functools.cache
def _environment() -> Callable[[], Any]:
    try:
        import jinja2
    except ImportError as e:
        raise ValueError(
            "chat templates need jinja2, which is not installed: pip install 'jaxlm[generate]'"
        ) from e
    if tuple(map(int, re.findall(r"\d+", jinja2.__version__)[:3])) < (3, 1, 6):
        raise ValueError(
            f"chat templates need jinja2 3.1.6 or newer, because a template can leave the sandbox of "
            f"{jinja2.__version__}: pip install -U jinja2"
        )
    from jinja2 import ext, nodes, sandbox, utils, visitor

    class Generation(ext.Extension):
        """The block `generation`, by which training marks answers; its contents are rendered as they are."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.If(nodes.Const(True), body, [], []).set_lineno(line)

    class Namespace(utils.Namespace):
        """A namespace without attributes that begin with an underscore."""

        def __init__(*args, **kwargs):  # the name `self` is free for the template
            self, args = args[0], args[1:]
            attributes = dict(*args, **kwargs)
            for name in attributes:
                Namespace._check(name)
            utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name, value):
            Namespace._check(name)
            utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace has no attribute {name!r}")

    class Bounded(visitor.NodeTransformer):
        """Counts the steps of loops, and sends `~` through a function that looks at the length."""

        def visit_For(self, node):
            node = self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, "_bounded", [], [], None, None).set_lineno(
                node.lineno
            )
            return node

        def visit_Concat(self, node):
            node = self.generic_visit(node)
            parts = nodes.List(node.nodes).set_lineno(node.lineno)
            return nodes.Filter(parts, "_concat", [], [], None, None).set_lineno(node.lineno)

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))

        def _parse(self, source, name, filename):
            return Bounded().visit(super()._parse(source, name, filename))

        def unsafe_undefined(self, obj, attribute):
            raise jinja2.exceptions.SecurityError(f"a template may not read {attribute!r}")

        def call_binop(self, context, operator, left, right):
            _tick()
            _check_operands(operator, left, right)
            return _short(super().call_binop(context, operator, left, right))

        def call(self, context, function, *args, **kwargs):
            _tick()
            _check_call(function, args, kwargs)
            return _short(super().call(context, function, *args, **kwargs))

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    class Dict:
        """The type `dict` for templates, without its other attributes."""

        def __call__(self, *args, **kwargs):
            return dict(*args, **kwargs)

        def fromkeys(self, *args, **kwargs):
            return dict.fromkeys(*args, **kwargs)

    def make():
        result = Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
        )
        del result.globals["lipsum"]
        result.filters = {name: _guarded(f) for name, f in result.filters.items()}
        result.filters |= dict(_bounded=_bounded, _concat=_concat, tojson=_tojson)
        result.globals |= dict(
            raise_exception=raise_exception,
            strftime_now=lambda form: datetime.datetime.now().strftime(form),
            dict=Dict(),
            namespace=Namespace,
        )
        return result

    return make


class TemplateLimitError(Exception):
    """A template does more work than any chat needs."""


class limits:
    """A context in which a template may work, until it has used up its steps or its time; not to be nested."""

    def __enter__(self):
        _budget.steps, _budget.deadline = MAX_STEPS, time.monotonic() + MAX_SECONDS

    def __exit__(self, *_):
        _budget.steps, _budget.deadline = 0, 0.0


class _Budget(threading.local):
    # what is left in this thread; nothing outside of `limits`, so that compiling a template computes nothing
    steps = 0
    deadline = 0.0


_budget = _Budget()


def _tick() -> None:
    _budget.steps -= 1
    if _budget.steps < 0:
        raise TemplateLimitError(f"takes more than {MAX_STEPS:,} steps")
    if time.monotonic() > _budget.deadline:
        raise TemplateLimitError(f"takes longer than {MAX_SECONDS:g} s")


class _Sized:
    """A sequence whose steps are counted."""

    def __init__(self, values: Any):
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return _counted(self._values)


def _counted(values: Any) -> Iterator[Any]:
    for value in values:
        _tick()
        yield value


def _bounded(values: Any) -> Any:
    """What a loop runs over; its length is kept for `loop.length`."""
    return _Sized(values) if hasattr(values, "__len__") else _counted(values)


def _short(value: Any) -> Any:
    if isinstance(value, str):
        _too_long(len(value))
    elif isinstance(value, list | tuple) and len(value) > MAX_STEPS:
        raise TemplateLimitError(f"makes a list of more than {MAX_STEPS:,} values")
    return value


def _concat(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _too_long(sum(map(len, texts)))
    return "".join(texts)


def _too_long(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise TemplateLimitError(f"makes a text of more than {MAX_CHARACTERS:,} characters")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuses a product, power or formatted text that is too long, before it is made."""
    if operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(times, int):
                _too_long(len(value) * times)
        if isinstance(left, int) and isinstance(right, int):
            _too_long(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _too_long(left.bit_length() * abs(right) * 100)
    elif operator == "%" and isinstance(left, str):
        _check_format(left, right if isinstance(right, tuple) else (right,))


# methods of texts, and filters by the names of their functions, that put texts in many times
_REPEATING = ("replace", "do_replace", "join", "sync_do_join", "translate", "do_indent")


def _check_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses arguments by which a method or filter makes a text that is too long: widths, and repeated texts."""
    values = (*args, *kwargs.values())
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_CHARACTERS:
            raise TemplateLimitError(f"passes the number {value if abs(value) < 1e20 else '...'}")
    function = getattr(function, "__wrapped__", function)  # jinja2 wraps `str.format`
    name = getattr(function, "__name__", "")
    text = getattr(function, "__self__", None)
    text, rest = (text, values) if isinstance(text, str) else (values[0] if values else "", values)
    if not isinstance(text, str):
        text = ""
    lengths = [len(x) for x in rest if isinstance(x, str | list | tuple)]
    if name in _REPEATING:
        _too_long((len(text) + max(lengths, default=0)) * max(lengths, default=1))
    elif name in ("format", "format_map", "do_format"):
        _check_format(text, values)


def _check_format(text: str, values: tuple[Any, ...]) -> None:
    """Refuses a width of seven digits or more, and one that is given as a value."""
    large = any(isinstance(x, int) and abs(x) >= 10**6 for x in values)
    if re.search(r"\d{7,}", text) or (large and ("*" in text or re.search(r"\{[^}]*\{", text))):
        raise TemplateLimitError("formats a text of more than 1,000,000 characters")


def _guarded(function: Callable) -> Callable:
    """A filter that counts as a step, and whose arguments and result are looked at."""

    first = int(hasattr(function, "jinja_pass_arg"))  # jinja2 passes its context to some

    @functools.wraps(function)
    def run(*args, **kwargs):
        _tick()
        _check_call(function, args[first:], kwargs)
        return _short(function(*args, **kwargs))

    return run


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes for HTML of jinja2's own filter."""
    _tick()
    _check_call(_tojson, (indent,), {})
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
