"""The engine against full forward passes, and what must not change a request's text."""

import dataclasses
import functools
import random

import jax
import numpy as np
import pytest
from styles import ENCODER_DECODERS, STYLES, language_model, random_params

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.generation import cache, prefill, scoring, step
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings

VOCAB, LENGTH, BLOCK = 40, 64, 4
CONFIGS = {
    # a window of 3 in blocks of 4: local layers keep 8 entries of 64
    "alternating": dataclasses.replace(STYLES["alternating"], num_layers=2, max_len=LENGTH),
    "t5": dataclasses.replace(ENCODER_DECODERS["t5"], num_layers=1, max_len=LENGTH),
}
GREEDY = Settings(max_new_tokens=6, temperature=0.0)
SAMPLED = Settings(max_new_tokens=8, temperature=1.0, top_k=30, top_p=0.95, seed=5, logprobs=2)


@functools.cache
def model(name):
    built = language_model(CONFIGS[name])
    return built, random_params(built)


@functools.cache
def engine(name, **options):
    return Engine(*model(name), slots=4, block=BLOCK, **options)


def texts(*lengths, seed=0):
    """Random tokens of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB, n).tolist() for n in lengths]


@functools.cache
def full(name):
    """The logits of the next token after each token, without a cache, for rows of LENGTH tokens."""
    built, params = model(name)

    @jax.jit
    def run(tokens, source, segments):
        if name == "t5":
            return built.apply({"params": params}, source, tokens, segment_ids=segments)[0]
        return built.apply({"params": params}, tokens)[0]

    def logits(tokens, source=()):
        padded, given = np.zeros((1, LENGTH), np.int32), np.zeros((1, 16), np.int32)
        padded[0, : len(tokens)], given[0, : len(source)] = tokens, source
        segments = (np.arange(16)[None] < len(source)).astype(np.int32)
        return np.asarray(run(padded, given, segments))[len(tokens) - 1]

    return logits


def expected(name, prompt, settings, source=(), change=lambda logits, tokens, index: logits):
    """Greedy tokens from full passes."""
    tokens = list(prompt)
    for index in range(settings.max_new_tokens):
        logits = change(full(name)(tokens, source).astype(np.float64), tokens, index)
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]


def ids(tokens):
    return [token.id for token in tokens]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_full_passes(name):
    # prompts in different buckets, more of them than slots; one grows through several lengths of the cache
    prompts = [[0], [0, 7], [0], [0, 3, 9], [0]] if name == "t5" else texts(1, 5, 17, 40, 2)
    sources = texts(3, 9, 16, 1, 5, seed=1) if name == "t5" else [None] * 5
    settings = [dataclasses.replace(GREEDY, max_new_tokens=20 if i == 1 else 4) for i in range(5)]
    got = engine(name).run([Request(*each) for each in zip(prompts, settings, sources)])
    for tokens, prompt, chosen, source in zip(got, prompts, settings, sources):
        assert ids(tokens) == expected(name, prompt, chosen, source or ())
        assert [token.reason for token in tokens] == [None] * (len(tokens) - 1) + ["length"]


def test_a_long_prompt_comes_in_chunks(monkeypatch):
    monkeypatch.setattr(prefill, "BUCKETS", (8,))
    (prompt,) = texts(40)
    (got,) = Engine(*model("alternating"), slots=1, block=BLOCK).run([Request(prompt, GREEDY)])
    assert ids(got) == expected("alternating", prompt, GREEDY)


def test_a_text_depends_on_its_own_request_only():
    one = Request(texts(6)[0], SAMPLED)
    others = [
        Request(prompt, dataclasses.replace(SAMPLED, seed=i, temperature=0.3 * i))
        for i, prompt in enumerate(texts(3, 7, 5, seed=2))
    ]
    # one length of the cache, so that all steps are the same program
    fixed = Engine(*model("alternating"), slots=4, block=LENGTH)
    results = []
    for order in ([one, *others], [*others, one], [others[1], one, others[0], others[2]]):
        tokens = fixed.run(order)[order.index(one)]
        results.append([token._replace(request=0) for token in tokens])
    assert len(ids(results[0])) == 8
    # to the last bit, log-probabilities too
    assert results[0] == results[1] == results[2]
    # and the seed matters
    other = one._replace(settings=dataclasses.replace(SAMPLED, seed=6))
    assert ids(fixed.run([other, *others])[0]) != ids(results[0])


def test_requests_that_come_and_go_get_the_same_texts():
    rng = random.Random(0)
    requests = [
        Request(prompt, dataclasses.replace(SAMPLED, seed=i, max_new_tokens=rng.randint(1, 30)))
        for i, prompt in enumerate(texts(*(rng.randint(1, 30) for _ in range(12)), seed=3))
    ]
    alone = [ids(engine("alternating").run([request])[0]) for request in requests]
    running, results, left = {}, {}, list(range(12))
    while left or running:
        if left and rng.random() < 0.5:
            index = left.pop(0)
            running[engine("alternating").add(requests[index])] = index
        for token in engine("alternating").step():
            results.setdefault(running[token.request], []).append(token.id)
            if token.reason:
                del running[token.request]
    assert [results[i] for i in range(12)] == alone


PROGRAMS = (prefill.begin, prefill.proceed, step.forward, step.write, step.insert)
PROGRAMS += (cache.empty, cache.take, cache.put, scoring._score)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "is_bound"), [("alternating", False), ("alternating", True), ("t5", False)]
)
def test_nothing_is_compiled_after_warm_up(name, is_bound):
    built, params = model(name)
    if is_bound:  # to a device, as parameters are that were read from a file
        params = jax.device_put(params, jax.devices()[0])
    warm = Engine(built, params, slots=4, block=16)
    warm.warm_up()
    compiled = [program._cache_size() for program in PROGRAMS]
    rng = random.Random(0)
    for size in (1, 3, 9):
        prompts = texts(*(rng.randint(1, 60) for _ in range(size)), seed=size)
        sources = texts(*(rng.randint(1, 60) for _ in range(size))) if name == "t5" else None
        warm.run(
            [
                Request(
                    prompt[:20] if name == "t5" else prompt,
                    dataclasses.replace(SAMPLED, min_new_tokens=1, repetition_penalty=1.5),
                    sources[i] if sources else None,
                )
                for i, prompt in enumerate(prompts)
            ]
        )
        if name != "t5":
            warm.score(prompts)
    assert [program._cache_size() for program in PROGRAMS] == compiled


def test_a_step_copies_no_cache_and_no_weights():
    # wide heads, so that a cache is large against everything else in the program
    built = language_model(dataclasses.replace(CONFIGS["alternating"], head_dim=32, max_len=1024))
    wide = Engine(built, random_params(built), slots=4, block=1024)
    # of a single row, XLA of jaxlib 0.10 copies the keys: it merges their update with its use
    for _ in range(4):
        wide.add(Request([1], GREEDY))
    wide.step()
    state = wide._state
    compiled = step.forward.lower(
        wide.model, wide.params, state.caches, state.texts, vocab_size=VOCAB
    ).compile()
    caches = jax.tree.leaves(state.caches)
    memory = compiled.memory_analysis()
    # every cache is written in place, and nothing of the size of one is made beside it
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in caches)
    assert memory.temp_size_in_bytes < min(x.nbytes for x in caches)


def banned(*tokens):
    """A change of the logits that excludes tokens."""

    def change(logits, seen, index):
        logits[list(tokens)] = -np.inf
        return logits

    return change


def repetition(logits, tokens, index):
    seen = sorted(set(tokens))
    logits[seen] = np.where(logits[seen] < 0, logits[seen] * 4, logits[seen] / 4)
    return logits


def frequency(logits, tokens, index):
    for token in tokens[len(tokens) - index :]:
        logits[token] -= 0.5
    for token in set(tokens[len(tokens) - index :]):
        logits[token] -= 0.25
    return logits


def no_repeat(logits, tokens, index):
    for end in range(1, len(tokens)):
        if tokens[end - 1] == tokens[-1]:
            logits[tokens[end]] = -np.inf
    return logits


def bias(logits, tokens, index):
    logits[7] += 0.3
    logits[11] -= 2.0
    return logits


def only(logits, tokens, index):
    return np.where(np.isin(np.arange(VOCAB), (3, 5, 8)), logits, -np.inf)


def forced(logits, tokens, index):
    return {0: np.eye(VOCAB)[9], 9: np.eye(VOCAB)[13]}.get(index, logits)


def not_first(logits, tokens, index):
    return banned(1, 2, 3, 20, 21, 27, 30)(logits, tokens, index) if index == 0 else logits


RULES = {
    "repetition_penalty": (dict(repetition_penalty=4.0), repetition),
    "frequency": (dict(frequency_penalty=0.5, presence_penalty=0.25), frequency),
    "no_repeat_ngram": (dict(no_repeat_ngram=2), no_repeat),
    "suppress": (dict(suppress=(11, 12, 17)), banned(11, 12, 17)),
    "begin_suppress": (dict(begin_suppress=(1, 2, 3, 20, 21, 27, 30)), not_first),
    "logit_bias": (dict(logit_bias={7: 0.3, 11: -2.0}), bias),
    "allowed": (dict(allowed=(3, 5, 8)), only),
    "forced": (dict(forced_first=9, forced_last=13), forced),
    "none": ({}, lambda logits, tokens, index: logits),
}


def test_rules_change_the_logits_as_transformers_defines_them():
    # all in one batch, so that a rule of one row would show in another
    (prompt,) = texts(9, seed=4)
    prompt[4] = prompt[-1]
    greedy = dataclasses.replace(GREEDY, max_new_tokens=10)
    settings = {name: dataclasses.replace(greedy, **given) for name, (given, _) in RULES.items()}
    got = engine("alternating").run([Request(prompt, each) for each in settings.values()])
    results = dict(zip(RULES, map(ids, got)))
    for name, (_, change) in RULES.items():
        want = expected("alternating", prompt, settings[name], change=change)
        assert results[name] == want, name
        assert name == "none" or want != results["none"], f"{name} changes nothing here"


def test_end_tokens_end_a_text_but_not_too_early():
    (prompt,) = texts(5)
    want = expected("alternating", prompt, dataclasses.replace(GREEDY, max_new_tokens=8))
    end = want[2]
    first = want.index(end)
    (got,) = engine("alternating").run(
        [Request(prompt, Settings(max_new_tokens=8, temperature=0.0, stop_ids=(end, 39)))]
    )
    assert ids(got) == want[: first + 1]
    assert got[-1].reason == "stop"
    settings = Settings(max_new_tokens=8, min_new_tokens=6, temperature=0.0, stop_ids=(end,))
    (got,) = engine("alternating").run([Request(prompt, settings)])
    assert end not in ids(got)[:6]
    assert len(got) >= 6


def test_a_cancelled_request_leaves_the_others_alone():
    prompts = texts(4, 6, 8)
    want = [expected("alternating", prompt, GREEDY) for prompt in prompts]
    numbers = [engine("alternating").add(Request(prompt, GREEDY)) for prompt in prompts]
    got = {}
    while engine("alternating").active or engine("alternating").waiting:
        for token in engine("alternating").step():
            got.setdefault(token.request, []).append(token.id)
            if token.request == numbers[1] and len(got[numbers[1]]) == 2:
                engine("alternating").cancel(numbers[1])
    assert [got[n] for n in numbers] == [want[0], want[1][:2], want[2]]


def test_log_probabilities_are_those_of_the_model_and_the_same_when_scored():
    (prompt,) = texts(6)
    (got,) = engine("alternating").run([Request(prompt, dataclasses.replace(SAMPLED, logprobs=3))])
    text = prompt + ids(got)
    for index, token in enumerate(got):
        table = np.asarray(jax.nn.log_softmax(full("alternating")(text[: len(prompt) + index])))
        assert token.log_prob == pytest.approx(table[token.id], abs=1e-4)
        best = np.argsort(-table)[:3]
        assert [i for i, _ in token.top] == best.tolist()
        np.testing.assert_allclose([value for _, value in token.top], table[best], atol=1e-4)
    (scores,) = engine("alternating").score([text], top=2)
    np.testing.assert_allclose(
        scores.log_probs[len(prompt) - 1 :], [token.log_prob for token in got], atol=1e-4
    )
    for log_prob, is_best, top in zip(*scores):
        assert is_best == (log_prob == top[0][1])
        assert len(top) == 2
    assert len(scores.log_probs) == len(text) - 1


def test_a_prefix_model_reads_its_prompt_in_both_directions():
    built, params = model("alternating")
    (prompt,) = texts(9, seed=7)
    (got,) = engine("alternating", is_prefix=True).run([Request(prompt, GREEDY)])
    tokens = np.zeros((1, LENGTH), np.int32)
    is_prompt = (np.arange(LENGTH) < 9)[None]
    apply = jax.jit(lambda tokens: built.apply({"params": params}, tokens, prefix=is_prompt))
    text = list(prompt)
    for _ in range(GREEDY.max_new_tokens):
        tokens[0, : len(text)] = text
        text.append(int(np.asarray(apply(tokens))[0, len(text) - 1].argmax()))
    assert ids(got) == text[9:]
    assert ids(got) != expected("alternating", prompt, GREEDY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [{"data": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4}, {"fsdp": 2, "context": 4}]
)
def test_several_devices_write_the_same(shape):
    config = dataclasses.replace(CONFIGS["alternating"], num_heads=4, num_kv_heads=4, vocab_size=40)
    built = language_model(config)
    params = random_params(built)
    requests = [Request(prompt, SAMPLED) for prompt in texts(3, 20, 7, 9, 12)]
    want = Engine(built, params, slots=4, block=BLOCK).run(requests)
    mesh = sharding.make_mesh(MeshConfig(**shape))
    placed = jax.device_put(params, sharding.param_shardings(params, mesh))
    got = Engine(built, placed, slots=4, block=BLOCK, mesh=mesh).run(requests)
    assert [ids(tokens) for tokens in got] == [ids(tokens) for tokens in want]


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("alternating", Request([], GREEDY), "prompt is empty"),
        ("alternating", Request([1] * 64, GREEDY), "64 tokens, more than the 63"),
        ("alternating", Request([40], GREEDY), "prompt: 40 is not one of the 40"),
        ("alternating", Request([-1], GREEDY), "prompt: -1"),
        ("alternating", Request([1], GREEDY, [2]), "only an encoder-decoder"),
        ("t5", Request([1], GREEDY), "needs a source"),
        ("t5", Request([1], GREEDY, []), "source has 0 tokens"),
        ("t5", Request([1], GREEDY, [99]), "source: 99"),
        ("alternating", Request([1], Settings(stop_ids=(44,))), "stop_ids: 44"),
        ("alternating", Request([1], Settings(suppress=(True,))), "suppress: True"),
        (
            "alternating",
            Request([1] * 60, Settings(min_new_tokens=9)),
            "min_new_tokens=9 is more than the 4",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(name, request_, message):
    with pytest.raises(ValueError, match=message):
        engine(name).add(request_)
    assert not engine(name).waiting


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(temperature=-1), "temperature=-1 is out of range: 0 to 100"),
        (dict(temperature=float("nan")), "temperature=nan"),
        (dict(top_k=0), "top_k=0 is out of range: at least 1"),
        (dict(top_p=1.5), "top_p"),
        (dict(min_p=-0.1), "min_p"),
        (dict(max_new_tokens=0), "max_new_tokens"),
        (dict(max_new_tokens=2.5), "max_new_tokens must be a whole number"),
        (
            dict(min_new_tokens=9, max_new_tokens=3),
            "min_new_tokens=9 is more than max_new_tokens=3",
        ),
        (dict(repetition_penalty=0), "repetition_penalty"),
        (dict(seed=-1), "seed"),
        (dict(logprobs=21), "logprobs=21 is out of range: 0 to 20"),
        (dict(stop=("",)), "stop must be strings"),
        (dict(stop="ab"), "stop must be strings"),
        (dict(logit_bias={3: float("inf")}), "logit_bias"),
        (dict(allowed=(3,), suppress=(3, 4)), "allowed leaves no token"),
        (dict(allowed=()), "allowed leaves no token"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**given)
