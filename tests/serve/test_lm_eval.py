"""lm-evaluation-harness, untouched, against a server: its numbers are those that the engine computes offline."""

import json
import os
import subprocess
import sys

import calls
import pytest
import stub

# in a process of its own, which imports half of the world: all results as JSON in a file
HARNESS = """
import json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
from lm_eval.api.instance import Instance as One
from lm_eval.models.openai_completions import LocalCompletionsAPI
pairs, rolling, prompts, url, name, out = json.loads(sys.argv[1])
stop = {"until": ["e"], "max_gen_toks": 12}

def ask(model, kind, arguments):
    listed = [One(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]
    return getattr(model, kind)(listed)

results = {}
for concurrent, batch in ((1, 1), (1, 3), (4, 2)):
    model = LocalCompletionsAPI(
        base_url=url, model=name, num_concurrent=concurrent, batch_size=batch, max_length=250
    )
    assert model.tokenizer_backend == "remote"
    results[f"{concurrent} {batch}"] = dict(
        loglikelihood=ask(model, "loglikelihood", [tuple(pair) for pair in pairs]),
        rolling=ask(model, "loglikelihood_rolling", [(text,) for text in rolling]),
        generated=ask(model, "generate_until", [(prompt, stop) for prompt in prompts]),
        eot=model.eot_token_id,
        prefix=model.prefix_token_id,
    )
json.dump(results, open(out, "w"))
"""
PAIRS = [
    ("the quick brown", " fox"),
    ("the quick brown", " fox jumps over"),
    ("sphinx of", " black quartz"),
    ("", "the lazy dog"),
]
ROLLING = "the quick brown fox judge my vow " * 8
PROMPTS = ["the quick", "my vow"]


def harness(url, name, pairs, path):
    """What the harness gets from a server, by (requests at a time, prompts of one)."""
    arguments = [pairs, [ROLLING], PROMPTS, f"{url}/v1/completions", name, str(path)]
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OPENAI_API_KEY": "none"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


def scored(tokenizer, engine, context, continuation):
    """Log-likelihood of a continuation, and whether it is greedy, as the engine says."""
    ids, start = tokenizer.encode(context + continuation), len(tokenizer.encode(context))
    if not context:
        ids, start = [tokenizer.bos_id, *ids], 1
    [scores] = engine.score([ids], top=1)
    chosen = scores.log_probs[start - 1 :]
    return sum(chosen), chosen == [best[0][1] for best in scores.top[start - 1 :]]


def greedy_pair(tokenizer, following):
    """A text and its most probable continuation, which is encoded as that token after it."""
    for word in " ".join(stub.TEXTS).split():
        ids = tokenizer.encode(word)
        best = following(ids)
        text = tokenizer.decode([best])
        if text.strip() and tokenizer.encode(word + text) == [*ids, best]:
            return word, text
    raise AssertionError("none")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stub", "real"])
def test_the_harness_gets_our_own_scores(kind, tmp_path):
    for needed in ("lm_eval", "aiohttp", "tenacity"):
        pytest.importorskip(needed)
    if kind == "stub":
        served, options = stub.served(), {}

        def following(ids):
            return int(stub.distribution(ids, served.vocab_size).argmax())
    else:
        import real

        from jaxlm.generation.requests import Request
        from jaxlm.generation.settings import Settings

        served, options = real.served(slots=1), {"real": "decoder"}

        def following(ids):
            [[token]] = served.engine.run([Request(ids, Settings(temperature=0, max_new_tokens=1))])
            return token.id

    tokenizer = served.tokenizer
    pairs = [*PAIRS, greedy_pair(tokenizer, following)]
    with calls.server_thread(**options) as running:
        results = harness(running.url, served.name, pairs, tmp_path / "results.json")
    # texts of different lengths are scored in one batch, which is another compiled shape
    equal = (lambda x: x) if kind == "stub" else (lambda x: pytest.approx(x, abs=1e-4))
    for got in results.values():
        assert got["eot"] == tokenizer.eos_id
        assert got["prefix"] == tokenizer.bos_id
        for (log_prob, greedy), pair in zip(got["loglikelihood"], pairs, strict=True):
            expected = scored(tokenizer, served.engine, *pair)
            assert log_prob == equal(expected[0])
            assert greedy == expected[1]
        assert [greedy for _, greedy in got["loglikelihood"]] == [False] * 4 + [True]
        assert got["rolling"] == [equal(scored(tokenizer, served.engine, "", ROLLING)[0])]
        for text, prompt in zip(got["generated"], PROMPTS, strict=True):
            ids = tokenizer.encode(prompt)
            for _ in range(12):
                if (token := following(ids)) == tokenizer.eos_id:
                    break
                ids.append(token)
            ours = tokenizer.decode(ids[len(tokenizer.encode(prompt)) :])
            assert text == ours.partition("e")[0]
