"""One server process over an engine whose answers are known: endpoints, streams, limits, and abuse."""

import contextlib
import json
import socket
import threading
import time

import calls
import pytest
import stub

LIMITS = dict(
    body_bytes=100_000, new_tokens=2000, answers=8, queue=12, receive_seconds=1.0, seconds=8.0
)


@pytest.fixture(scope="module")
def server():
    with calls.server(limits=LIMITS, slots=4, seconds=0.002) as running:
        yield running


@pytest.fixture(scope="module")
def call(server):
    return lambda path, body=None, **more: calls.call(server.port, path, body, **more)


@pytest.fixture(scope="module")
def tokenizer():
    return stub.served().tokenizer


def say(text, **more):
    return {"messages": [{"role": "user", "content": stub.SAY + text}], **more}


def idle(call):
    """Waits until nothing runs or waits."""
    for _ in range(200):
        body = call("/health").body
        if body["running"] == body["waiting"] == 0:
            return body
        time.sleep(0.02)
    raise AssertionError(body)


# ---- endpoints


def test_the_model_is_listed(call):
    [model] = call("/v1/models").body["data"]
    assert model["id"] == "stub"
    assert model["max_model_len"] == stub.MAX_LEN
    assert call("/v1/models/stub").body == model
    assert call("/v1/models/other").status == 404
    assert call("/health").body["status"] == "ok"


def test_an_answer_of_a_chat(call, tokenizer):
    answer = call("/v1/chat/completions", say("hello 你好", user="me"))
    assert answer.status == 200
    body = answer.body
    [choice] = body["choices"]
    assert choice["message"] == dict(role="assistant", content="hello 你好", refusal=None)
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None
    assert body["object"] == "chat.completion"
    # with the end token
    generated = len(tokenizer.encode("hello 你好")) + 1
    assert body["usage"]["completion_tokens"] == generated
    prompt = call("/tokenize", {"messages": say("hello 你好")["messages"]}).body
    assert body["usage"]["prompt_tokens"] == prompt["count"]
    cut = call("/v1/chat/completions", say("hello", max_completion_tokens=2)).body["choices"][0]
    assert cut["finish_reason"] == "length"
    assert cut["message"]["content"] == tokenizer.decode(tokenizer.encode("hello")[:2])


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(call):
    # its tokens cross the border, and the text before it is sent though it looked like its beginning
    [choice] = call("/v1/chat/completions", say("one two twelve", stop=["twel", "xx"])).body[
        "choices"
    ]
    assert choice["message"]["content"] == "one two "
    assert choice["finish_reason"] == "stop"
    answer = call(
        "/v1/chat/completions",
        say("one two twelve three", stop="twel", logprobs=True, stream=True),
    )
    parts = [event["choices"][0] for event in calls.events(answer.body)]
    text = "".join(part["delta"].get("content", "") for part in parts)
    tokens = [t["token"] for p in parts if p["logprobs"] for t in p["logprobs"]["content"]]
    assert text == "one two "
    assert "".join(tokens) == text
    assert parts[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream(call, usage):
    text = "你好, 世界! 🙂 fine"
    more = dict(stream_options={"include_usage": True}) if usage else {}
    answer = call("/v1/chat/completions", say(text, stream=True, n=3, **more))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = calls.events(answer.body)
    if usage:
        last = events.pop()
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == sum(last["usage"].values()) // 2
        assert all(event["usage"] is None for event in events)
    else:
        assert all("usage" not in event for event in events)
    choices = [event["choices"][0] for event in events]
    assert [c["index"] for c in choices[:3]] == [0, 1, 2]
    assert all(c["delta"] == dict(role="assistant", content="") for c in choices[:3])
    for index in range(3):
        own = [c for c in choices if c["index"] == index]
        contents = [c["delta"].get("content", "") for c in own]
        assert "".join(contents) == text
        # no half characters, though each of these is several tokens
        assert not any("\ufffd" in content for content in contents)
        assert [c["finish_reason"] for c in own] == [None] * (len(own) - 1) + ["stop"]
    assert len({event["id"] for event in events}) == 1


def test_completions_of_texts_and_ids(call, tokenizer):
    ids = tokenizer.encode("the fox")
    greedy = dict(temperature=0, max_tokens=6)
    whole = [
        call("/v1/completions", dict(prompt=prompt, **greedy)).body["choices"]
        for prompt in ("the fox", ["the fox"], ids, [ids])
    ]
    assert whole[0] == whole[1] == whole[2] == whole[3]
    both = call("/v1/completions", dict(prompt=["the fox", "my vow"], n=2, **greedy)).body
    texts = [choice["text"] for choice in both["choices"]]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert texts[0] == texts[1] == whole[0][0]["text"]
    assert texts[2] == texts[3] != texts[0]
    assert both["usage"]["prompt_tokens"] == len(ids) + len(tokenizer.encode("my vow"))


def test_the_seed_decides_and_choices_differ(call):
    def texts(**more):
        body = call("/v1/completions", dict(prompt="the fox", max_tokens=8, n=3, **more)).body
        return [choice["text"] for choice in body["choices"]]

    first = texts(seed=5)
    assert len(set(first)) == 3
    assert texts(seed=5) == first
    assert texts(seed=6)[0] == first[1]
    assert texts() != texts()
    assert texts(seed=-1) == texts(seed=2**31 - 1)


def test_echo_with_log_probabilities_is_what_the_engine_scores(call, tokenizer):
    served = stub.served()
    ids = tokenizer.encode("the quick fox")
    for max_tokens in (0, 3):
        body = dict(
            prompt=[ids, ids[:3]], echo=True, logprobs=2, max_tokens=max_tokens, temperature=0
        )
        one, two = call("/v1/completions", body).body["choices"]
        for choice, prompt in ((one, ids), (two, ids[:3])):
            # the text that was generated, from the same probabilities
            whole = list(prompt)
            for _ in range(max_tokens):
                whole.append(int(stub.distribution(whole, tokenizer.vocab_size).argmax()))
            [scores] = served.engine.score([whole], top=2)
            got = choice["logprobs"]
            assert got["token_logprobs"] == [None, *scores.log_probs]
            assert got["top_logprobs"][0] is None
            for top, expected, chosen in zip(got["top_logprobs"][1:], scores.top, scores.log_probs):
                assert max(top.values()) == expected[0][1]
                assert chosen in top.values()
            assert got["tokens"] == [served.pieces.text(i) for i in whole]
            assert choice["text"].startswith(tokenizer.decode(prompt))
            assert choice["finish_reason"] == "length"
            whole_tokens = [t for t in got["tokens"] if not t.startswith(("bytes:", "<"))]
            for token, offset in zip(got["tokens"], got["text_offset"]):
                assert token not in whole_tokens or choice["text"].startswith(token, offset)


def test_a_streamed_echo_begins_with_the_prompts_in_order(call):
    body = dict(prompt=["the fox", "my vow"], echo=True, logprobs=0, max_tokens=2, stream=True)
    events = calls.events(call("/v1/completions", body).body)
    choices = [event["choices"][0] for event in events]
    assert [(c["index"], c["text"]) for c in choices[:2]] == [(0, "the fox"), (1, "my vow")]
    assert choices[0]["logprobs"]["token_logprobs"][0] is None
    reasons = [c["finish_reason"] for c in choices if c["finish_reason"]]
    assert reasons == ["length", "length"]
    body |= dict(max_tokens=0, stream_options={"include_usage": True})
    *choices, last = calls.events(call("/v1/completions", body).body)
    assert [event["choices"][0]["finish_reason"] for event in choices] == ["length", "length"]
    assert last["usage"]["completion_tokens"] == 0


def test_what_stands_between_two_texts(call, tokenizer):
    names = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    before, after, middle = (tokenizer.vocab[name] for name in names)
    ids = [before, *tokenizer.encode("the"), after, *tokenizer.encode("fox"), middle]
    asked = dict(temperature=0, max_tokens=4)
    filled = call("/v1/completions", dict(prompt="the", suffix="fox", **asked)).body["choices"]
    plain = call("/v1/completions", dict(prompt=ids, **asked)).body["choices"]
    assert filled[0]["text"] == plain[0]["text"]


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def test_calls_of_tools(call):
    text = 'Wait.<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    [choice] = call("/v1/chat/completions", say(text, tools=TOOLS)).body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Wait."
    [made] = choice["message"]["tool_calls"]
    assert made["function"] == dict(name="f", arguments='{"x": 1}')
    # one call, though the model writes two
    two = say(text + text, tools=TOOLS, parallel_tool_calls=False)
    [choice] = call("/v1/chat/completions", two).body["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    [choice] = call("/v1/chat/completions", two | dict(parallel_tool_calls=True)).body["choices"]
    assert len(choice["message"]["tool_calls"]) == 2
    # without tools it is text
    [choice] = call("/v1/chat/completions", say(text)).body["choices"]
    assert choice["message"]["content"] == text
    events = calls.events(call("/v1/chat/completions", say(text, tools=TOOLS, stream=True)).body)
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(d.get("content", "") for d in deltas) == "Wait."
    [[streamed]] = [d["tool_calls"] for d in deltas if "tool_calls" in d]
    assert streamed["index"] == 0
    assert streamed["function"] == made["function"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tokens_of_a_text_and_back(call, tokenizer):
    tokens = call("/tokenize", {"prompt": "the fox", "return_token_strs": True}).body
    assert tokens["tokens"] == tokenizer.encode("the fox")
    assert tokens["count"] == len(tokens["tokens"])
    assert "".join(tokens["token_strs"]) == "the fox"
    assert call("/detokenize", {"tokens": tokens["tokens"]}).body == {"prompt": "the fox"}
    info = call("/tokenizer_info").body
    assert info["eos_token"] == "<eos>"
    assert info["chat_template"] == stub.TEMPLATE
    # a control token alone is what evaluation programs ask for; within a text it is text
    assert call("/tokenize", {"prompt": "<eos>"}).body["tokens"] == [tokenizer.eos_id]
    assert tokenizer.eos_id not in call("/tokenize", {"prompt": "a<eos>"}).body["tokens"]
    assert call("/detokenize", {"tokens": [5000]}).status == 400


def test_metrics_count_tokens_and_statuses(call):
    def value(name):
        lines = call("/metrics").body.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    good = 'jaxlm_requests_total{route="/v1/completions",status="200"}'
    bad = 'jaxlm_requests_total{route="/v1/completions",status="400"}'
    names = [good, bad, "jaxlm_generated_tokens_total", 'jaxlm_requests_total{route="other"']
    before = [value(name) for name in names]
    call("/v1/completions", dict(prompt="a", max_tokens=7, logit_bias={"4": -100}, temperature=0))
    call("/v1/completions", dict(prompt=7))
    call("/nothing/here")
    after = [value(name) for name in names]
    assert [b - a for a, b in zip(before, after)] == [1, 1, 7, 1]


def test_one_line_in_the_log_for_each_request(server, call):
    call("/v1/completions", dict(prompt="a", max_tokens=13, logit_bias={"4": -100}))
    call("/x%0a2026%20forged%1b[31m")

    def lines(part):
        # a line is written after its answer
        for _ in range(200):
            if matching := [line for line in server.log().splitlines() if part in line]:
                return matching
            time.sleep(0.01)
        raise AssertionError(server.log())

    [line] = lines("generated=13 ")
    assert "127.0.0.1 POST /v1/completions 200 " in line
    assert "prompt=1 generated=13 first=0." in line
    [line] = lines("forged")
    assert "GET /x%0a2026%20forged%1b%5B31m 404" in line


# ---- limits

TOO_LONG = "x" * 5000


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/completions", dict(prompt=TOO_LONG), 400, "prompt"),
        ("/v1/completions", dict(prompt=""), 400, "prompt"),
        (
            "/v1/chat/completions",
            dict(messages=[dict(role="user", content=TOO_LONG)]),
            400,
            "messages",
        ),
        ("/v1/completions", dict(prompt="a", max_tokens=2001), 400, "max_tokens"),
        ("/v1/completions", dict(prompt="x" * 4000, max_tokens=1999), 400, "max_tokens"),
        ("/v1/completions", dict(prompt="a", n=9), 400, "n"),
        ("/v1/completions", dict(prompt=["a"] * 9), 400, "prompt"),
        ("/v1/completions", dict(prompt="a", min_tokens=20), 400, "min_tokens"),
        ("/v1/completions", dict(prompt="a", model="gpt-4"), 404, "model"),
        ("/v1/chat/completions", say("a", chat_template_kwargs={"messages": 1}), 400, "messages"),
        ("/v1/embeddings", dict(input="a"), 404, None),
        ("/tokenize", dict(prompt="a", messages=[]), 400, "messages"),
        ("/detokenize", dict(tokens="a"), 400, "tokens"),
    ],
)
def test_what_is_too_much_or_not_offered_is_refused(call, path, body, status, param):
    answer = call(path, body)
    assert answer.status == status, answer.body
    error = answer.body["error"]
    assert error["param"] == param
    assert len(error["message"].splitlines()) == 1


def test_a_full_queue_is_a_429_with_the_time_to_wait(server, call):
    results = []

    def ask():
        body = dict(prompt="a", max_tokens=150, n=2, temperature=0, logit_bias={"4": -100})
        results.append(call("/v1/completions", body))

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status for answer in results)
    # four slots and a queue of twelve, for 60 answers
    assert 7 <= statuses.count(200) < 30
    assert statuses.count(200) + statuses.count(429) == 30
    for answer in results:
        if answer.status == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.body["error"]["code"] == "queue_full"
        else:
            assert [c["finish_reason"] for c in answer.body["choices"]] == ["length"] * 2
    idle(call)


def test_a_constraint_is_compiled_beside_what_is_generated():
    body, results = dict(prompt="a", max_tokens=2), []
    stub.Engine.compiled.clear()
    with calls.server_thread() as running:

        def ask(regex):
            asked = body if regex is None else body | dict(structured_outputs={"regex": regex})
            return calls.call(running.port, "/v1/completions", asked)

        thread = threading.Thread(target=lambda: results.append(ask("slow")))
        thread.start()
        try:
            assert ask(None).status == 200
            assert not results
        finally:
            stub.Engine.compiled.set()
            thread.join()
        wrong = ask("(")
    assert results[0].status == 200
    assert (wrong.status, wrong.body["error"]["param"]) == (400, "response_format")


def test_a_constraint_that_fails_is_the_error_of_its_own_request(call):
    answer = call("/v1/completions", dict(prompt="MISFIT", max_tokens=5))
    assert answer.status == 500
    assert "constraint failed" in answer.body["error"]["message"]
    assert call("/v1/completions", dict(prompt="a", max_tokens=2)).status == 200
    idle(call)


def test_an_answer_that_takes_too_long_ends(call):
    body = dict(prompt="a", max_tokens=2000, temperature=0, n=4, logit_bias={"4": -100})
    with calls.server_thread(limits=dict(seconds=0.4), seconds=0.02) as slow:
        answer = calls.call(slow.port, "/v1/completions", body)
        assert answer.status == 504
        assert answer.headers["x-should-retry"] == "false"
        streamed = calls.call(slow.port, "/v1/completions", body | dict(stream=True))
        assert streamed.status == 200
        *parts, last = calls.events(streamed.body)
        assert len(parts) > 4
        assert last["error"]["type"] == "timeout_error"
        idle(lambda path: calls.call(slow.port, path))


# ---- abuse


@contextlib.contextmanager
def connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        yield raw


def read_all(raw):
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := raw.recv(65536):
            data += part
    return data


def status_of(data):
    return int(data.split(b" ", 2)[1]) if data else None


def post(body, path="/v1/completions", headers=""):
    length = (
        ""
        if "content-length" in headers or "transfer" in headers
        else f"content-length: {len(body)}\r\n"
    )
    always = "host: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"POST {path} HTTP/1.1\r\n{always}{length}{headers}\r\n".encode() + body


def get(path):
    return b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


ABUSE = {
    "bad JSON": (post(b"{nope"), 400),
    "not UTF-8": (post(b'{"prompt": "\xff"}'), 400),
    "deep": (post(b"[" * 90_000), 400),
    "NaN": (post(b'{"prompt": "a", "temperature": NaN}'), 400),
    "lone surrogate": (post(b'{"prompt": "\\ud800"}'), 400),
    "unknown field": (post(b'{"prompt": "a", "zzz": 1}'), 400),
    "wrong type": (post(b'{"prompt": {"a": 1}}'), 400),
    "huge number": (post(b'{"prompt": "a", "max_tokens": 1e999}'), 400),
    "a form": (post(b"prompt=a").replace(b"application/json", b"text/plain"), 415),
    "huge body": (post(b" " * 200_000), 413),
    "a larger one is not read": (post(b"", headers="content-length: 99999999999\r\n"), 413),
    "huge body in chunks": (
        post(
            b"".join([b"fff0\r\n" + b" " * 0xFFF0 + b"\r\n"] * 3) + b"0\r\n\r\n",
            headers="transfer-encoding: chunked\r\n",
        ),
        413,
    ),
    "two lengths": (post(b"{}", headers="content-length: 2\r\ncontent-length: 9\r\n"), 400),
    "bad length": (post(b"{}", headers="content-length: -2\r\n"), 400),
    "huge headers": (b"GET /health HTTP/1.1\r\nhost: " + b"b" * 2_000_000, 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60 + b"\r\n\r\n", 400),
    "wrong method": (get(b"/v1/completions"), 405),
    "a method of its own": (get(b"/health").replace(b"GET", b"BREW"), 405),
    "path up": (get(b"/../../etc/passwd"), 404),
    "path up, quoted": (get(b"/%2e%2e/%2e%2e/etc/passwd"), 404),
    "path up within the page": (get(b"/page/../../../../etc/passwd"), 404),
    "backslashes": (get(b"/..%5c..%5cetc%5cpasswd"), 404),
    "null byte": (get(b"/index.html%00.txt"), 404),
    "two slashes": (get(b"//v1/models"), 404),
    "a slash more": (get(b"/v1/models/"), 404),
    "a whole address": (get(b"http://example.com/latest/meta-data"), 404),
    "long path": (get(b"/" + b"a" * 20_000), 404),
    "websocket": (
        get(b"/v1/completions").replace(
            b"connection: close", b"connection: upgrade\r\nupgrade: websocket"
        ),
        405,
    ),
    "slow headers": (b"GET /health HTTP/1.1\r\nhost:", None),
    "silence": (b"", None),
    "slow body": (post(b'{"prompt": ', headers="content-length: 100\r\n"), 408),
}


@pytest.mark.parametrize("name", ABUSE)
def test_abuse_gets_its_status_and_the_server_stays_healthy(server, call, name):
    data, status = ABUSE[name]
    with connection(server.port) as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(data)
        assert status_of(read_all(raw)) == status
    assert call("/health").body["status"] == "ok"


def test_a_body_that_drips_is_not_waited_for_without_end(server, call):
    with connection(server.port) as raw:
        raw.sendall(post(b'{"prompt": ', headers="content-length: 500\r\n"))
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 15:
                raw.sendall(b" ")
                time.sleep(0.1)
                raw.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if data := raw.recv(1000):
                        break
                raw.setblocking(True)
        assert status_of(data) == 408
    assert call("/health").body["status"] == "ok"


def test_streams_that_are_dropped_free_their_slots(server, call):
    body = json.dumps(dict(prompt="a", max_tokens=2000, stream=True, n=2, logit_bias={"4": -100}))
    for _ in range(6):
        with connection(server.port) as raw:
            raw.sendall(post(body.encode()))
            assert status_of(raw.recv(1000)) == 200
    # and an answer without a stream
    with connection(server.port) as raw:
        raw.sendall(post(body.replace("true", "false").encode()))
        time.sleep(0.05)
    idle(call)
    assert " 499 " in server.log()


def test_a_stream_that_nobody_reads_ends_with_its_time():
    # many megabytes, which no buffer takes
    body = json.dumps(dict(prompt="x" * 2000, stream=True, n=20, echo=True, logprobs=20))
    with calls.server_thread(limits=dict(seconds=3.0, receive_seconds=0.5), slots=20) as other:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", other.port))
        raw.sendall(post(body.encode()))
        idle_at = lambda path: calls.call(other.port, path)
        for _ in range(300):
            if " 499 " in other.log():
                break
            time.sleep(0.05)
        assert " 499 " in other.log()
        idle(idle_at)
        raw.close()


def test_one_client_with_many_requests_does_not_starve_others():
    # keys make two clients on one address
    with calls.server_thread(
        slots=2, seconds=0.01, keys=["key-of-many", "key-of-one"], limits=dict(queue=40)
    ) as fair:
        done = []

        def ask(key, name):
            headers = {"authorization": f"Bearer {key}"}
            body = dict(prompt="a", max_tokens=20, temperature=0, logit_bias={"4": -100})
            answer = calls.call(fair.port, "/v1/completions", body, headers=headers)
            done.append((name, answer.status))

        many = [threading.Thread(target=ask, args=("key-of-many", "many")) for _ in range(40)]
        for thread in many:
            thread.start()
        health = lambda: calls.call(fair.port, "/health").body
        while health()["waiting"] < 30:
            time.sleep(0.005)
        ask("key-of-one", "one")
        position = len(done)
        for thread in many:
            thread.join()
        # it waited for a slot, not for those that came before it
        assert done[position - 1] == ("one", 200)
        assert position < 20
        assert [status for _, status in done].count(200) >= 40


def test_keys():
    with calls.server_thread(keys=["first-key-1", "second-key"]) as locked:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer wrong-key"}, 401),
            ({"authorization": "Bearer first-key"}, 401),
            ({"authorization": "Basic first-key-1"}, 401),
            ({"authorization": "Bearer "}, 401),
            ({"authorization": "Bearer \xe9\xe9"}, 401),
            ({"authorization": "Bearer first-key-1"}, 200),
            ({"authorization": "bearer second-key"}, 200),
        ):
            for path in ("/v1/models", "/metrics", "/tokenizer_info"):
                answer = calls.call(locked.port, path, headers=headers)
                assert answer.status == status, headers
        assert answer.status == 200
        refused = calls.call(locked.port, "/v1/completions", dict(prompt="a"))
        assert refused.headers["www-authenticate"] == "Bearer"
        # a balancer has no key
        assert calls.call(locked.port, "/health").status == 200
        assert "first-key" not in locked.log()


def test_embeddings():
    with calls.server_thread(encoder=True) as encoder:
        call = lambda path, body=None: calls.call(encoder.port, path, body)
        body = call("/v1/embeddings", dict(input=["aab", "b"])).body
        assert [entry["index"] for entry in body["data"]] == [0, 1]
        assert body["data"][0]["embedding"][97:99] == [0.25, 0.125]
        assert body["usage"]["prompt_tokens"] > 0
        assert call("/v1/completions", dict(prompt="a")).status == 404
        refused = call("/v1/embeddings", dict(input=[[1, 2, 3]]))
        assert refused.status == 400
        assert "check_embedding_ctx_length=False" in refused.body["error"]["message"]
        assert call("/v1/models").body["data"][0]["jaxlm"]["kind"] == "encoder"
