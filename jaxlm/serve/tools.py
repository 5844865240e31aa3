"""Calls of tools in an answer: how a chat model writes them, how they are read, and how one is enforced."""

from __future__ import annotations

import dataclasses
import json
import secrets
from typing import Any

from jaxlm.generation.settings import Constraint


@dataclasses.dataclass(frozen=True)
class Format:
    """How a family of chat models writes calls."""

    # what begins a call, and what ends it; "": it ends with the JSON value
    begin: str
    end: str
    # the name of the arguments in the JSON object
    arguments: str
    # whether the JSON value is a list of calls
    listed: bool = False


# what the template has -> the format; Hermes, Qwen, SmolLM; Mistral; Llama 3.1 and later
_FORMATS = {
    "<tool_call>": Format("<tool_call>", "</tool_call>", "arguments"),
    "[TOOL_CALLS]": Format("[TOOL_CALLS]", "", "arguments", listed=True),
    "<|python_tag|>": Format("<|python_tag|>", "", "parameters"),
}


def find_format(template: Any) -> Format | None:
    """The format of a chat template (one, or several by name); None: it has no tools, or in a format not known here."""
    sources = template.values() if isinstance(template, dict) else [template]
    for source in sources:
        if isinstance(source, str) and "tools" in source:
            for mark, form in _FORMATS.items():
                if mark in source:
                    return form
    return None


@dataclasses.dataclass(frozen=True)
class Call:
    """One call, with its arguments as JSON."""

    id: str
    name: str
    arguments: str

    def body(self) -> dict[str, Any]:
        """As OpenAI's protocol writes it."""
        function = dict(name=self.name, arguments=self.arguments)
        return dict(id=self.id, type="function", function=function)


class CallReader:
    """Splits the text of an answer, as it comes, into content and calls.

    What only looks like a call (its JSON is broken, or it names no tool) stays text.
    """

    def __init__(self, form: Format, names: list[str]):
        self._form = form
        self._names = names
        self._held = ""
        self.calls = 0

    def add(self, text: str) -> tuple[str, list[Call]]:
        """Content that is certain now, and calls that are complete now."""
        self._held += text
        content = ""
        calls: list[Call] = []
        while True:
            at = self._held.find(self._form.begin)
            if at < 0:
                keep = _overlap(self._held, self._form.begin)
                content += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                return content, calls
            content, self._held = content + self._held[:at], self._held[at:]
            length = self._length()
            if length is None:
                return content, calls
            taken, self._held = self._held[:length], self._held[length:]
            read = self._read(taken)
            if read:
                calls += read
                content = content.rstrip("\n") if content.strip() else ""
            else:
                content += taken

    def finish(self) -> tuple[str, list[Call]]:
        """What is left at the end of the answer; a call whose end is missing counts if its JSON is whole."""
        taken, self._held = self._held, ""
        if not taken.startswith(self._form.begin):
            return taken, []
        calls = self._read(taken)
        return ("" if calls else taken), calls

    def _length(self) -> int | None:
        """Characters of the call at the beginning of the held text; None: it is not complete."""
        if self._form.end:
            at = self._held.find(self._form.end)
            return None if at < 0 else at + len(self._form.end)
        body = self._held[len(self._form.begin) :]
        space = len(body) - len(body.lstrip())
        if not body.strip():
            return None
        if body.lstrip()[0] not in "[{":
            return len(self._form.begin)
        try:
            _, end = json.JSONDecoder().raw_decode(body.lstrip())
        except ValueError:
            return None
        return len(self._form.begin) + space + end

    def _read(self, text: str) -> list[Call]:
        body = text.removeprefix(self._form.begin).removesuffix(self._form.end).strip()
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return []
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(self._is_call(entry) for entry in entries):
            return []
        self.calls += len(entries)
        return [self._call(entry) for entry in entries]

    def _is_call(self, entry: Any) -> bool:
        return isinstance(entry, dict) and entry.get("name") in self._names

    def _call(self, entry: dict[str, Any]) -> Call:
        arguments = entry.get(self._form.arguments, entry.get("arguments", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return Call("call_" + secrets.token_hex(12), entry["name"], text)


def enforce(form: Format, tools: list[dict[str, Any]], choice: str, special: bool) -> Constraint:
    """The constraint under which the answer is a call: of any tool (`required`), or of one (`function NAME`).

    Args:
        special: whether the tokenizer has the format's marks as control tokens.
    """
    functions = [tool["function"] for tool in tools]
    if choice != "required":
        functions = [f for f in functions if f"function {f['name']}" == choice]
    options = [
        {
            "type": "object",
            "properties": {
                "name": {"const": f["name"]},
                form.arguments: {"$ref": f"#/$defs/{i}"},
            },
            "required": ["name", form.arguments],
            "additionalProperties": False,
        }
        for i, f in enumerate(functions)
    ]
    parameters = {str(i): _within(f["parameters"], f"#/$defs/{i}") for i, f in enumerate(functions)}
    schema: dict[str, Any] = options[0] if len(options) == 1 else {"anyOf": options}
    if form.listed:
        schema = {"type": "array", "items": schema, "minItems": 1}
    # spaces as models were trained on; with any number of them a model may write nothing else
    spaces = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    schema = schema | {"$defs": parameters, "x-guidance": spaces}
    mark = lambda text: text if special else json.dumps(text)
    parts = [mark(form.begin), '"\\n"', "call", '"\\n"', mark(form.end)]
    if not form.end:
        parts = [mark(form.begin), "call"]
    grammar = f"start: {' '.join(parts)}\ncall: %json {json.dumps(schema)}\n"
    return Constraint(grammar=grammar)


def _within(schema: Any, place: str) -> Any:
    """A schema whose references to itself are right where it is a part of another one."""
    if isinstance(schema, list):
        return [_within(x, place) for x in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _within(value, place)
        for key, value in schema.items()
    }


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text could be the beginning of the mark."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
