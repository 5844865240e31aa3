"""Calls of tools in the text of an answer."""

import json

import pytest

from jaxlm.serve import tools

HERMES = tools.find_format("{{ tools }} <tool_call>")
MISTRAL = tools.find_format("{{ tools }} [TOOL_CALLS]")
LLAMA = tools.find_format("{{ tools }} <|python_tag|>")
ONE = '{"name": "f", "%s": {"x": 1}}'


def read(form, text, size):
    """Content and calls of a text that comes in pieces of this size."""
    reader = tools.CallReader(form, ["f", "g"])
    content, calls = "", []
    for i in range(0, len(text), size):
        more, new = reader.add(text[i : i + size])
        content += more
        calls += new
    more, new = reader.finish()
    return content + more, [(call.name, json.loads(call.arguments)) for call in calls + new]


F = ("f", {"x": 1})
HERMES_ONE = ONE % "arguments"
TABLE = [
    (HERMES, "no call < at all <tool", "no call < at all <tool", []),
    (HERMES, f"<tool_call>\n{HERMES_ONE}\n</tool_call>", "", [F]),
    (
        HERMES,
        f"ok <tool_call>{HERMES_ONE}</tool_call>\n<tool_call>{HERMES_ONE}</tool_call>",
        "ok ",
        [F, F],
    ),
    (HERMES, f"<tool_call>{HERMES_ONE}", "", [F]),  # the model ended without the mark
    (HERMES, "<tool_call>{broken</tool_call> x", "<tool_call>{broken</tool_call> x", []),
    (HERMES, '<tool_call>{"name": "h"}</tool_call>', '<tool_call>{"name": "h"}</tool_call>', []),
    (MISTRAL, f"[TOOL_CALLS][{HERMES_ONE}, {HERMES_ONE}]", "", [F, F]),
    (MISTRAL, f"[TOOL_CALLS] [{HERMES_ONE}", f"[TOOL_CALLS] [{HERMES_ONE}", []),
    (LLAMA, "<|python_tag|>" + ONE % "parameters", "", [F]),
    (LLAMA, "<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), TABLE)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_read_however_the_text_comes(form, text, content, calls, size):
    got, found = read(form, text, size)
    assert found == calls
    assert got.strip() == content.strip()


def test_templates_without_tools_have_no_format():
    assert tools.find_format(None) is None
    assert tools.find_format("{{ messages }} <tool_call>") is None
    assert tools.find_format({"default": "x", "tool_use": "{{ tools }}<tool_call>"}) is HERMES


def test_a_forced_call_allows_only_the_named_tool():
    offered = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in "fg"
    ]
    grammar = tools.enforce(HERMES, offered, "function g", special=False).grammar
    assert '{"const": "g"}' in grammar
    assert '{"const": "f"}' not in grammar
    assert grammar.startswith('start: "<tool_call>"')
    grammar = tools.enforce(HERMES, offered, "required", special=True).grammar
    assert '{"const": "f"}' in grammar
    assert grammar.startswith("start: <tool_call> ")


def test_references_within_parameters_stay_right():
    parameters = {
        "type": "object",
        "properties": {"who": {"$ref": "#/$defs/Person"}, "next": {"$ref": "#"}},
        "$defs": {"Person": {"type": "string", "enum": ["Ann"]}},
    }
    offered = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    grammar = tools.enforce(HERMES, offered, "required", special=False).grammar
    schema = json.loads(grammar.partition("%json ")[2])
    moved = schema["$defs"]["0"]
    assert moved["properties"]["who"] == {"$ref": "#/$defs/0/$defs/Person"}
    assert moved["properties"]["next"] == {"$ref": "#/$defs/0"}
    guidance = pytest.importorskip("llguidance")
    from jaxlm.config import TokenizerConfig
    from jaxlm.data import tokenizer
    from jaxlm.generation.constraints import Compiler
    from jaxlm.generation.settings import Constraint

    tok = tokenizer.train(["ab"], TokenizerConfig(kind="byte_bpe", vocab_size=270))
    assert guidance
    matcher = Compiler(tok, tok.vocab_size).matcher(Constraint(grammar=grammar))
    text = '<tool_call>\n{"name": "f", "arguments": {"who": "Ann"}}\n</tool_call>'
    for token in tok.encode(text)[:-1]:
        assert not matcher.accept(token)
    assert matcher.accept(tok.encode(text)[-1])
