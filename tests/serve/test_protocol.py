"""Bodies of requests: what is accepted, and that every refusal names its field."""

import pytest

from jaxlm.serve import fields, protocol
from jaxlm.serve.refusal import Refusal

V = 300
MESSAGES = [{"role": "user", "content": "hi"}]


def complete(**body):
    return protocol.read_completion({"prompt": "a"} | body, ("m",), V)


def chat(**body):
    return protocol.read_chat({"messages": MESSAGES} | body, ("m",), V)


def embed(**body):
    return protocol.read_embedding({"input": "a"} | body, ("m",), 8)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
# reader, fields of the body, the field that is named, a part of the message
BAD = [
    (complete, dict(temprature=1), "temprature", "did you mean temperature?"),
    (complete, dict(xyz=1), "xyz", "is not a field that this server knows"),
    (complete, dict(model="other"), "model", "there is m"),
    (complete, dict(model=5), "model", "must be a text, not a whole number"),
    (complete, dict(prompt=None), "prompt", "is missing"),
    (complete, dict(prompt=[]), "prompt", "is an empty list"),
    (complete, dict(prompt={"a": 1}), "prompt", "not an object"),
    (complete, dict(prompt=["a", 1]), "prompt[1]", "must be a text, not a whole number"),
    (complete, dict(prompt=[1, "a"]), "prompt[1]", "must be a token id, not a text"),
    (complete, dict(prompt=[1, True]), "prompt[1]", "must be a token id, not true or false"),
    (complete, dict(prompt=[[1], []]), "prompt[1]", "is an empty list of token ids"),
    (complete, dict(prompt=[[1], [1, V]]), "prompt[1][1]", "below 300, not 300"),
    (complete, dict(prompt=[-1]), "prompt[0]", "below 300, not -1"),
    (complete, dict(prompt="\ud800"), "prompt", "lone surrogate"),
    (complete, dict(max_tokens=-1), "max_tokens", "must be at least 0, not -1"),
    (complete, dict(max_tokens=1.5), "max_tokens", "must be a whole number, not 1.5"),
    (complete, dict(max_tokens="5"), "max_tokens", 'must be a whole number, not "5"'),
    (complete, dict(max_tokens=True), "max_tokens", "must be a whole number, not true"),
    (complete, dict(max_tokens=0), "max_tokens", "0 with echo=true"),
    (complete, dict(temperature=3), "temperature", "between 0 and 2, not 3"),
    (complete, dict(temperature="hot"), "temperature", "must be a number, not a text"),
    (complete, dict(temperature=10**400), "temperature", "between 0 and 2"),
    (complete, dict(top_p=0), "top_p", "above 0"),
    (complete, dict(top_p=1.1), "top_p", "between 0 and 1"),
    (complete, dict(top_k=-2), "top_k", "at least -1"),
    (complete, dict(repetition_penalty=0), "repetition_penalty", "above 0"),
    (complete, dict(n=0), "n", "at least 1"),
    (complete, dict(n=2, best_of=3), "best_of", "equal to n"),
    (complete, dict(logprobs=21), "logprobs", "between 0 and 20"),
    (complete, dict(logprobs=True), "logprobs", "whole number"),
    (complete, dict(stop=5), "stop", "a text or a list of texts"),
    (complete, dict(stop=["a", 5]), "stop[1]", "must be a text"),
    (complete, dict(stop=""), "stop", "1 to 256 characters"),
    (complete, dict(stop=["a"] * 17), "stop", "at most 16"),
    (complete, dict(seed=2**63), "seed", "between"),
    (complete, dict(logit_bias={"x": 1}), "logit_bias.x", "not a token id"),
    (complete, dict(logit_bias={"300": 1}), "logit_bias.300", "not a token id below 300"),
    (complete, dict(logit_bias={"3": 101}), "logit_bias.3", "between -100 and 100"),
    (complete, dict(logit_bias=[1]), "logit_bias", "must be an object"),
    (complete, dict(stream="yes"), "stream", "true or false"),
    (complete, dict(stream_options={"include_usage": True}), "stream_options", "stream=true"),
    (
        complete,
        dict(stream=True, stream_options={"usage": True}),
        "stream_options.usage",
        "not a field",
    ),
    (complete, dict(store=True), "store", "not stored"),
    (complete, dict(suffix="b", echo=True), "echo", "contradicts suffix"),
    (complete, dict(response_format={"type": "xml"}), "response_format.type", "must be one of"),
    (complete, dict(response_format={}), "response_format.type", "is missing"),
    (
        complete,
        dict(response_format={"type": "json_schema", "json_schema": {"schema": 3}}),
        "response_format.json_schema.schema",
        "must be a JSON schema",
    ),
    (complete, dict(structured_outputs={"choice": []}), "structured_outputs.choice", "not empty"),
    (complete, dict(structured_outputs={}), "structured_outputs", "one of json, regex"),
    (
        complete,
        dict(structured_outputs={"regex": "a"}, response_format={"type": "json_object"}),
        "structured_outputs",
        "contradicts response_format",
    ),
    (chat, dict(messages="hi"), "messages", "must be a list, not a text"),
    (chat, dict(messages=[]), "messages", "is an empty list"),
    (chat, dict(messages=["hi"]), "messages[0]", "must be an object"),
    (chat, dict(messages=[{"content": "a"}]), "messages[0].role", "is missing"),
    (chat, dict(messages=[{"role": "boss", "content": "a"}]), "messages[0].role", "one of system"),
    (chat, dict(messages=[{"role": "user"}]), "messages[0].content", "is missing"),
    (
        chat,
        dict(messages=[{"role": "user", "content": 5}]),
        "messages[0].content",
        "a list of parts",
    ),
    (
        chat,
        dict(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        "messages[0].content[0].type",
        "only text is",
    ),
    (
        chat,
        dict(messages=[{"role": "tool", "content": "4"}]),
        "messages[0].tool_call_id",
        "missing",
    ),
    (chat, dict(messages=[MESSAGES[0] | {"mood": 1}]), "messages[0].mood", "not a field"),
    (chat, dict(max_tokens=5, max_completion_tokens=6), "max_tokens", "contradicts"),
    (chat, dict(top_logprobs=2), "top_logprobs", "logprobs=true"),
    (chat, dict(logprobs=3), "logprobs", "true or false"),
    (chat, dict(functions=[]), "functions", "use tools"),
    (chat, dict(reasoning_effort="low"), "reasoning_effort", "not offered"),
    (chat, dict(tools=[{"type": "function"}]), "tools[0].function", "is missing"),
    (chat, dict(tools=[TOOL], tool_choice="f"), "tool_choice", "none, auto, required"),
    (chat, dict(tool_choice="required"), "tool_choice", "needs tools"),
    (
        chat,
        dict(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
        "tool_choice.function.name",
        "not the name of one of the tools",
    ),
    (
        chat,
        dict(tools=[TOOL], response_format={"type": "json_object"}),
        "response_format",
        "contradicts tools",
    ),
    (embed, dict(input=[]), "input", "is an empty list"),
    (embed, dict(input=[1, 2]), "input", "check_embedding_ctx_length=False"),
    (embed, dict(input=[[1, 2]]), "input", "check_embedding_ctx_length=False"),
    (embed, dict(input=["a", 2]), "input[1]", "must be a text"),
    (embed, dict(encoding_format="hex"), "encoding_format", "float, base64"),
    (embed, dict(dimensions=4), "dimensions", "must be 8"),
]


@pytest.mark.parametrize(
    ("read", "body", "param", "message"),
    BAD,
    ids=[f"{i}-{param}" for i, (_, _, param, _) in enumerate(BAD)],
)
def test_a_bad_field_is_named(read, body, param, message):
    with pytest.raises(Refusal) as caught:
        read(**body)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert message in caught.value.message
    assert caught.value.status == (404 if "there is m" in message else 400)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{nope", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b"null", "must be a JSON object, not null"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_a_body_that_is_no_object_is_refused(body, message):
    with pytest.raises(Refusal, match=message) as caught:
        fields.parse(body)
    assert caught.value.status == 400


def test_what_clients_send_is_read():
    # lm-evaluation-harness
    asked = complete(
        model="m",
        prompt=[[1, 2], [3]],
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    assert asked.prompts == [[1, 2], [3]]
    assert asked.sampling == dict(temperature=0, seed=1234, logprobs=1)
    assert (asked.max_new_tokens, asked.echo, asked.n, asked.stream) == (1, True, 1, False)
    # LangChain: nulls, and parts
    parts = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        }
    ]
    asked = chat(
        messages=parts, max_completion_tokens=7, stop=None, n=1, stream=True, logit_bias=None
    )
    assert asked.messages == [{"role": "system", "content": "a\nb"}]
    assert (asked.max_new_tokens, asked.stream, asked.usage_in_stream) == (7, True, False)
    asked = chat(stop="x", top_k=-1, user="u", metadata={"a": "b"}, logprobs=True, top_logprobs=3)
    assert asked.sampling == dict(stop=("x",), logprobs=3)
    assert complete().max_new_tokens == 16
    assert chat().max_new_tokens is None


def test_tools_and_calls_are_read():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    ]
    asked = chat(
        messages=messages, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}
    )
    assert asked.messages[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert asked.tool_choice == "function f"
    assert chat(tools=[TOOL], tool_choice="none").tools == []


def test_formats_become_constraints():
    schema = {"type": "object"}
    wanted = chat(
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    )
    assert wanted.sampling["constraint"].json_schema == schema
    assert chat(response_format={"type": "json_object"}).sampling["constraint"].json_schema is True
    assert "constraint" not in chat(response_format={"type": "text"}).sampling
    choice = complete(structured_outputs={"choice": ["a+", "b"]}).sampling["constraint"]
    assert choice.regex == r"a\+|b"


def test_a_key_twice_in_a_body_is_refused():
    with pytest.raises(Refusal, match="duplicate key 'prompt'"):
        fields.parse(b'{"prompt": "a", "prompt": "b"}')
