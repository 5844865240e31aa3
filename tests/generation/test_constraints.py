"""Constrained output: whatever the model prefers, the text matches."""

import dataclasses
import json
import re

import numpy as np
import pytest
from styles import STYLES, language_model, random_params

from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.token_bytes import TokenBytes
from jaxlm.generation.constraints import Compiler, Matcher
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Constraint, Settings
from jaxlm.generation.text import TextStream

pytest.importorskip("llguidance")
TEXTS = ['{"name": "Ann", "age": 31, "tags": ["a", "b"]} 2024-05-06 yes no', "héllo 你好"] * 5
SCHEMA = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "ok": {"enum": ["yes", "no"]},
    },
    "required": ["age", "ok"],
    "additionalProperties": False,
}
GRAMMAR = 'start: pair (";" pair)~1\npair: /[a-c]/ "=" /[0-9]/'


def train(kind):
    return tokenizers.train(TEXTS, TokenizerConfig(kind=kind, vocab_size=300))


@pytest.fixture(scope="module")
def engine():
    tokenizer = train("byte_bpe")
    config = dataclasses.replace(
        STYLES["llama"], num_layers=1, vocab_size=tokenizer.vocab_size, max_len=128
    )
    model = language_model(config)
    return Engine(model, random_params(model), tokenizer=tokenizer, slots=4, block=128)


def is_json(text):
    value = json.loads(text)
    return set(value) == {"age", "ok"} and 0 <= value["age"] < 100 and value["ok"] in ("yes", "no")


CASES = {
    "schema": (Constraint(json_schema=SCHEMA), is_json),
    "regex": (
        Constraint(regex=r"\d{4}-\d{2}-\d{2}"),
        lambda text: re.fullmatch(r"\d{4}-\d{2}-\d{2}", text),
    ),
    "grammar": (
        Constraint(grammar=GRAMMAR),
        lambda text: re.fullmatch(r"[a-c]=\d;[a-c]=\d", text),
    ),
}


def test_constrained_texts_match_and_others_are_as_without(engine):
    tokenizer = engine._compiler._tokenizer
    end = (tokenizer.eos_id,)
    prompt = tokenizer.encode("yes no")
    free = Settings(max_new_tokens=12, seed=3)
    (alone,) = engine.run([Request(prompt, free)])
    settings = [
        Settings(max_new_tokens=100, seed=i, stop_ids=end, constraint=constraint)
        for i, (constraint, _) in enumerate(CASES.values())
    ]
    *constrained, beside = engine.run([Request(prompt, each) for each in [*settings, free]])
    assert [token.id for token in beside] == [token.id for token in alone]
    for (name, (_, matches)), tokens, chosen in zip(CASES.items(), constrained, settings):
        assert tokens[-1].reason == "stop", name
        stream = TextStream(tokenizer, chosen)
        text = "".join(stream.add(token.id) for token in tokens) + stream.finish()
        assert matches(text), (name, text)


def test_a_constraint_that_fails_ends_its_own_request_alone(engine, monkeypatch):
    tokenizer = engine._compiler._tokenizer
    prompt = tokenizer.encode("yes no")
    free = Settings(max_new_tokens=8, seed=3)
    (alone,) = engine.run([Request(prompt, free)])

    def fail(matcher, token):
        raise RuntimeError("the grammar is too large")

    monkeypatch.setattr(Matcher, "accept", fail)
    bad = dataclasses.replace(free, constraint=Constraint(regex=r"\d{4}"))
    failed, beside = engine.run([Request(prompt, bad), Request(prompt, free)])
    assert [token.reason for token in failed] == ["error"]
    assert [token.id for token in beside] == [token.id for token in alone]


@pytest.mark.parametrize("kind", ["byte_bpe", "unigram", "bpe"])
def test_the_bytes_of_tokens_join_to_the_text(kind):
    tokenizer = train(kind)
    table = TokenBytes(tokenizer)
    table.check_joins()
    for text in TEXTS[:2]:
        assert b"".join(map(table.get, tokenizer.encode(text))).decode().strip() == text


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Constraint(regex="a("), "cannot be used"),
        (Constraint(grammar="start: nothing"), "cannot be used"),
        (Constraint(json_schema={"type": "thing"}), "cannot be used"),
        (
            Constraint(json_schema={"allOf": [{"type": "string"}, {"type": "number"}]}),
            "cannot be used|no token",
        ),
    ],
)
def test_constraints_that_cannot_be_met_are_refused(engine, constraint, message):
    with pytest.raises(ValueError, match=message):
        engine.add(Request([1], Settings(constraint=constraint)))


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused_by_name():
    tokenizer = train("wordpiece")
    with pytest.raises(ValueError, match=r"not possible with this tokenizer.*WordPiece"):
        Compiler(tokenizer, tokenizer.vocab_size).matcher(Constraint(regex="a"))


@pytest.mark.parametrize("padding", [0, 1, 31, 32])
def test_a_mask_has_as_many_words_as_the_vocabulary_needs(padding):
    tokenizer = train("byte_bpe")
    # llguidance has a word more where the size is a multiple of 32
    size = -(-tokenizer.vocab_size // 32) * 32 + padding
    matcher = Compiler(tokenizer, size).matcher(Constraint(regex=" (cat|dog)"))
    assert matcher.bits().shape == (-(-size // 32),)
    allowed = np.unpackbits(matcher.bits().view(np.uint8), bitorder="little")
    assert {tokenizer.piece(int(i))[0] for i in np.flatnonzero(allowed)} == {" "}


def test_a_constraint_is_one_thing():
    with pytest.raises(ValueError, match="not json_schema and regex"):
        Constraint(json_schema=True, regex="a")


def llama_like():
    """A tokenizer that puts a space before every text and takes it away again, as Llama's does."""
    texts = [*TEXTS, "a=1;b=2;c=34567890 ok"]
    tokenizer = tokenizers.train(texts, TokenizerConfig(kind="bpe", vocab_size=300))
    description = json.loads(tokenizer.backend.to_str())
    description["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    description["pre_tokenizer"] = None
    description["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    made = tokenizers.from_json(json.dumps(description))
    assert made.backend.id_to_token(made.encode("yes")[0]).startswith("▁")
    return made


@pytest.mark.parametrize("name", CASES)
def test_a_tokenizer_that_puts_a_space_before_texts(name):
    tokenizer = llama_like()
    constraint, is_right = CASES[name]
    compiler = Compiler(tokenizer, tokenizer.vocab_size)
    table = TokenBytes(tokenizer)
    random = np.random.default_rng(0)
    for _ in range(10):
        matcher, text = compiler.matcher(constraint), b""
        for _ in range(200):
            bits = np.unpackbits(matcher.bits().view(np.uint8), bitorder="little")
            token = int(random.choice(np.flatnonzero(bits)))
            if token in tokenizer.end_ids:
                break
            text += table.get(token)
            if matcher.accept(token):
                break
        assert is_right(text.decode()), text


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(json_schema={"$ref": "#"}),
        Constraint(grammar="start: start"),
        Constraint(regex="a{4000000000}"),
    ],
)
def test_an_error_of_the_library_is_not_a_complete_text(engine, constraint):
    """In that state the end token is allowed, so that an empty answer would look like a right one."""
    (tokens,) = _run_or_refused(
        engine, Request([1], Settings(max_new_tokens=4, constraint=constraint))
    )
    assert not tokens or tokens[-1].reason == "error"


def _run_or_refused(engine, request):
    try:
        return engine.run([request])
    except ValueError as e:
        assert "constraint" in str(e)  # noqa: PT017
        return [[]]


def test_answers_to_one_request_share_the_compilation(engine, monkeypatch):
    compiler, made = Compiler(engine._compiler._tokenizer, 300), []
    compile_one = Compiler._compile
    monkeypatch.setattr(
        Compiler, "_compile", lambda self, c: made.append(c) or compile_one(self, c)
    )
    first, second = (compiler.matcher(Constraint(regex="ab|cd")) for _ in range(2))
    (a,) = compiler._tokenizer.encode("a")
    first.accept(a)
    assert len(made) == 1
    # each goes on by itself
    assert not np.array_equal(first.bits(), second.bits())
