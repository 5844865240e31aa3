"""Clients as people use them: the openai package, untouched, against a server process."""

import json
import pathlib
import re

import calls
import numpy as np
import pytest
import stub


@pytest.fixture(scope="module")
def server():
    with calls.server(slots=8) as running:
        yield running


@pytest.fixture(scope="module")
def openai():
    return pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(openai, server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def say(text):
    return [{"role": "user", "content": stub.SAY + text}]


TEXT = "the fox 你好 🙂"


def test_the_example_of_the_guide_runs(openai, server, capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    [code] = re.findall(r"```\n(from openai import .*?)```", page, re.DOTALL)
    names = {}
    exec(code.replace("http://127.0.0.1:8000", server.url), names)
    names["client"].close()
    assert capsys.readouterr().out.strip()


def test_models_and_chat(client):
    assert [model.id for model in client.models.list()] == ["stub"]
    answer = client.chat.completions.create(
        model="stub", messages=say(TEXT), logprobs=True, top_logprobs=2
    )
    [choice] = answer.choices
    assert choice.message.content == TEXT
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    entries = choice.logprobs.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == TEXT
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_with_several_choices(client, usage):
    more = dict(stream_options={"include_usage": True}) if usage else {}
    stream = client.chat.completions.create(
        model="stub", messages=say(TEXT), n=3, stream=True, **more
    )
    texts, order, last = ["", "", ""], [], None
    for chunk in stream:
        last = chunk.usage
        for choice in chunk.choices:
            if choice.index not in order:
                order.append(choice.index)
            texts[choice.index] += choice.delta.content or ""
    assert texts == [TEXT] * 3
    assert order == [0, 1, 2]
    assert (last is not None) == usage


def test_the_streaming_helper_accumulates_choices(client):
    with client.chat.completions.stream(model="stub", messages=say(TEXT), n=2) as stream:
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [TEXT] * 2
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 2


def test_a_call_of_a_tool(client):
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    text = '<tool_call>{"name": "f", "arguments": {"city": "Oslo"}}</tool_call>'
    asked = dict(
        model="stub", messages=say(text), tools=[{"type": "function", "function": function}]
    )
    [choice] = client.chat.completions.create(**asked).choices
    [made] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert json.loads(made.function.arguments) == {"city": "Oslo"}
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "f"
    # and what the tool said goes back
    messages = [
        *say(text),
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": made.id, "content": "cold"},
    ]
    client.chat.completions.create(model="stub", messages=messages, max_completion_tokens=1)


def test_completions(client):
    asked = dict(model="stub", prompt=["the", "my"], max_tokens=3, n=2, logprobs=2, echo=True)
    answer = client.completions.create(**asked, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[2].text.startswith("my")
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(**asked, seed=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in answer.choices]


def test_errors_are_the_packages_own(client, openai):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="stub", messages=say("a"), max_tokens=10**9)
    assert caught.value.param == "max_tokens"
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=say("a"))
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="stub", input="a")


def test_a_stream_that_is_closed_is_cancelled(client, server):
    stream = client.completions.create(
        model="stub", prompt="a", max_tokens=4000, stream=True, logit_bias={"4": -100}
    )
    next(iter(stream))
    stream.close()
    for _ in range(200):
        if calls.call(server.port, "/health").body["running"] == 0:
            break
    else:
        raise AssertionError("it runs on")


def test_embeddings(openai):
    with (
        calls.server_thread(encoder=True) as encoder,
        openai.OpenAI(base_url=f"{encoder.url}/v1", api_key="none", max_retries=0) as client,
    ):
        # without encoding_format the package asks for base64
        answer = client.embeddings.create(model="stub-encoder", input=["aab", "b"])
        expected = [np.bincount(list(text.encode()), minlength=256) / 8 for text in ("aab", "b")]
        assert [entry.embedding for entry in answer.data] == [list(row) for row in expected]
        floats = client.embeddings.create(
            model="stub-encoder", input=["aab", "b"], encoding_format="float"
        )
        assert [entry.embedding for entry in floats.data] == [list(row) for row in expected]
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model="stub-encoder", input=[[1, 2]])
