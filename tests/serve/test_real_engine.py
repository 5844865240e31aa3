"""The server over the real engine with tiny models: what clients get is what the engine gives offline."""

import json
import threading

import calls
import pytest
import real
import stub

from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings

pytestmark = pytest.mark.slow

PROMPTS = ["the quick brown", "sphinx", "你好, 世界!", "judge my vow " * 8]


@pytest.fixture(scope="module")
def call():
    with calls.server_thread(real="decoder", slots=4) as running:
        yield lambda path, body=None: calls.call(running.port, path, body, timeout=300)


@pytest.fixture(scope="module")
def engine():
    tokenizer, model, params = real.parts("decoder")
    return Engine(model, params, tokenizer=tokenizer, slots=1)


def test_concurrent_answers_are_those_of_the_engine_one_by_one(call, engine):
    tokenizer = engine_tokenizer()
    asked = [
        dict(prompt=prompt, max_tokens=tokens, temperature=temperature, seed=seed)
        for seed, prompt in enumerate(PROMPTS)
        for tokens, temperature in ((3, 0), (17, 0), (9, 1), (12, 0.7))
    ]
    texts = {}

    def ask(i):
        texts[i] = call("/v1/completions", asked[i]).body["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, body in enumerate(asked):
        settings = Settings(
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            seed=body["seed"],
            stop_ids=(tokenizer.eos_id,),
        )
        [tokens] = engine.run([Request(tokenizer.encode(body["prompt"]), settings)])
        ids = [token.id for token in tokens if token.id != tokenizer.eos_id]
        assert texts[i] == tokenizer.decode(ids)


def engine_tokenizer():
    return real.parts("decoder")[0]


def test_echo_has_the_engines_scores_and_generation_the_same_greedy_tokens(call, engine):
    ids = [engine_tokenizer().encode(prompt) for prompt in PROMPTS]
    body = dict(prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0)
    choices = call("/v1/completions", body).body["choices"]
    for choice, expected in zip(choices, engine.score(ids, top=1), strict=True):
        got = choice["logprobs"]
        assert got["token_logprobs"][:-1] == [None, *expected.log_probs]
        greedy = [
            log_prob == max(top.values())
            for log_prob, top in zip(got["token_logprobs"][1:-1], got["top_logprobs"][1:-1])
        ]
        assert greedy == expected.is_best
        # the token that was generated is the most probable one
        assert got["token_logprobs"][-1] == max(got["top_logprobs"][-1].values())


def test_text_under_a_schema(call):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    body = dict(
        messages=[dict(role="user", content="hi")],
        response_format=dict(type="json_schema", json_schema=dict(name="n", schema=schema)),
        max_tokens=60,
        seed=1,
    )
    [choice] = call("/v1/chat/completions", body).body["choices"]
    assert choice["finish_reason"] == "stop"
    assert 0 <= json.loads(choice["message"]["content"])["age"] <= 99
    # what no token can satisfy, and what is no schema
    for wrong in ({"type": "nothing"}, {"enum": []}):
        body["response_format"]["json_schema"]["schema"] = wrong
        answer = call("/v1/chat/completions", body)
        assert answer.status == 400
        assert len(answer.body["error"]["message"].splitlines()) == 1


def test_a_call_of_a_tool_can_be_required(call):
    pytest.importorskip("llguidance")
    function = dict(name="g", parameters=dict(enum=[dict(x="g")]))
    body = dict(
        messages=[dict(role="user", content="hi")],
        tools=[dict(type="function", function=function)],
        tool_choice="required",
        max_tokens=100,
        seed=1,
    )
    answer = call("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    [choice] = answer.body["choices"]
    [made] = choice["message"]["tool_calls"]
    assert made["function"] == dict(name="g", arguments='{"x": "g"}')
    assert choice["finish_reason"] == "tool_calls"


def test_an_encoder_decoder_answers_completions():
    tokenizer, model, params = real.parts("encoder_decoder")
    engine = Engine(model, params, tokenizer=tokenizer, slots=1)
    with calls.server_thread(real="encoder_decoder", slots=2) as running:
        call = lambda path, body: calls.call(running.port, path, body, timeout=300)
        body = dict(prompt=PROMPTS[:2], max_tokens=8, temperature=0)
        answer = call("/v1/completions", body).body
        for choice, prompt in zip(answer["choices"], PROMPTS, strict=False):
            settings = Settings(max_new_tokens=8, temperature=0, stop_ids=(tokenizer.eos_id,))
            source = tokenizer.encode(prompt)
            [tokens] = engine.run([Request([tokenizer.pad_id], settings, source)])
            ids = [token.id for token in tokens if token.id != tokenizer.eos_id]
            assert choice["text"] == tokenizer.decode(ids)
        assert answer["usage"]["prompt_tokens"] == sum(
            len(tokenizer.encode(prompt)) for prompt in PROMPTS[:2]
        )
        refused = call("/v1/chat/completions", dict(messages=[dict(role="user", content="a")]))
        assert refused.status == 400
        assert "does not chat" in refused.body["error"]["message"]
        assert call("/v1/completions", body | dict(echo=True)).body["error"]["param"] == "echo"
        assert call("/v1/completions", body | dict(suffix="x")).body["error"]["param"] == "suffix"


def test_the_template_of_the_stub_writes_what_was_said(call):
    answer = call("/tokenize", dict(messages=[dict(role="user", content=stub.SAY)]))
    text = engine_tokenizer().decode(answer.body["tokens"])
    assert text == f"user: {stub.SAY}\nassistant:"
