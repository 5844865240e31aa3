"""Greedy decoding and beam search against full forward passes without a cache."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from styles import ENCODER_DECODERS, STYLES, language_model, random_params

from jaxlm.generation import decode
from jaxlm.generation.beam import beam_search

# the models know 40 ids, of which 4 may be chosen
VOCAB, EOS, NEW = 4, 3, 4
PROMPTS, LENGTHS = np.array([[5, 9], [7, 0]]), np.array([2, 1])
SOURCE, SOURCE_LENGTHS = np.array([[11, 12, 13, 14], [15, 16, 0, 0]]), np.array([4, 2])
# every continuation, cut after its end
ALL = np.array(list(itertools.product(range(VOCAB), repeat=NEW)))
MODELS = {
    name: language_model(dataclasses.replace((STYLES | ENCODER_DECODERS)[name], num_layers=1))
    for name in ("llama", "t5")
}


@functools.cache
def params(name):
    return random_params(MODELS[name])


def source_of(name):
    """Source tokens and lengths of an encoder-decoder."""
    return dict(source=SOURCE, source_lengths=SOURCE_LENGTHS) if name == "t5" else {}


@functools.cache
def log_probs(name):
    """[2, 4^NEW, NEW, VOCAB]: for each prompt and continuation, what may follow each of its beginnings."""
    tokens = [np.tile(prompt[:n], (len(ALL), 1)) for prompt, n in zip(PROMPTS, LENGTHS)]
    tokens = [np.concatenate([x, ALL], axis=1) for x in tokens]
    tokens = np.concatenate([x[:, : NEW + 1] for x in tokens])
    texts, inputs = [tokens], {}
    if name == "t5":
        texts = [SOURCE.repeat(len(ALL), 0), tokens]
        inputs = dict(segment_ids=(SOURCE > 0).astype(np.int32).repeat(len(ALL), 0))
    logits = jax.jit(MODELS[name].apply)({"params": params(name)}, *texts, **inputs)
    table = np.asarray(jax.nn.log_softmax(logits[..., :VOCAB])).reshape(2, len(ALL), NEW + 1, VOCAB)
    return np.stack([row[:, n - 1 : n - 1 + NEW] for row, n in zip(table, LENGTHS)])


def scored(name, row, power):
    """{continuation up to its end: score}."""
    found = {}
    for tokens, table in zip(ALL, log_probs(name)[row]):
        length = next((i + 1 for i, t in enumerate(tokens) if t == EOS), NEW)
        total = table[np.arange(length), tokens[:length]].sum()
        found[tuple(tokens[:length])] = total / length**power
    return found


def expected_beams(name, row, beams, power):
    """Beam search by its definition, without early stopping: [(score, continuation)]."""
    of = {tuple(t): table for t, table in zip(ALL, log_probs(name)[row])}
    open_, done = [(0.0, ())], []
    for length in range(1, NEW + 1):
        longer = []
        for total, tokens in open_:
            table = of[tokens + (0,) * (NEW - len(tokens))][length - 1]
            longer += [(total + table[t], (*tokens, t)) for t in range(VOCAB)]
        longer = sorted(longer, reverse=True)[: 2 * beams]
        ended = [(total, tokens) for total, tokens in longer[:beams] if tokens[-1] == EOS]
        done += [(total / length**power, tokens) for total, tokens in ended]
        done = sorted(done, reverse=True)[:beams]
        open_ = [x for x in longer if x[1][-1] != EOS][:beams]
    done += [(total / NEW**power, tokens) for total, tokens in open_]
    return sorted(done, reverse=True)[:beams]


def search(name, beams, power):
    """Continuations of both prompts, cut after their end, and scores."""
    run = functools.partial(
        beam_search,
        MODELS[name],
        beams=beams,
        max_new_tokens=NEW,
        eos_id=EOS,
        length_penalty=power,
        vocab_size=VOCAB,
        **source_of(name),
    )
    tokens, scores = jax.jit(run)(params(name), PROMPTS, LENGTHS)
    assert tokens.shape == (2, beams, NEW)
    cut = lambda x: tuple(x[: int((x == EOS).argmax()) + 1]) if EOS in x else tuple(x)
    # nothing but the end after the end
    assert all((x[len(cut(x)) :] == EOS).all() for x in np.asarray(tokens).reshape(-1, NEW))
    return [[cut(x) for x in row] for row in np.asarray(tokens)], np.asarray(scores)


def test_beam_search_with_enough_beams_finds_the_optimum():
    tokens, scores = search("t5", VOCAB**NEW, 1.0)
    for row in range(2):
        want = scored("t5", row, 1.0)
        best = sorted(want, key=want.get, reverse=True)
        count = len(best)
        assert count == 1 + 3 + 9 + 27 * 4
        assert tokens[row][:5] == best[:5]
        np.testing.assert_allclose(scores[row, :count], sorted(want.values())[::-1], atol=1e-4)
        # there are no more than these
        assert (scores[row, count:] == -np.inf).all()


@pytest.mark.parametrize(("beams", "power"), [(1, 0.0), (3, 2.0)])
def test_beam_search_keeps_the_best_prefixes_of_each_length(beams, power):
    tokens, scores = search("t5", beams, power)
    for row in range(2):
        want = expected_beams("t5", row, beams, power)
        assert tokens[row] == [x for _, x in want]
        np.testing.assert_allclose(scores[row], [x for x, _ in want], atol=1e-4)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_greedy_decoding_takes_the_most_likely_token(name):
    run = functools.partial(
        decode.generate,
        MODELS[name],
        max_new_tokens=NEW,
        temperature=0.0,
        eos_id=EOS,
        vocab_size=VOCAB,
        **source_of(name),
    )
    got = jax.jit(run)(params(name), PROMPTS, LENGTHS, jax.random.key(0))
    for row in range(2):
        of = {tuple(t): table for t, table in zip(ALL, log_probs(name)[row])}
        tokens = ()
        while len(tokens) < NEW:
            table = of[tokens + (0,) * (NEW - len(tokens))][len(tokens)]
            tokens += (EOS,) if EOS in tokens else (int(table.argmax()),)
        assert tuple(got[row]) == tokens


def test_an_encoder_decoder_without_a_source_is_rejected():
    model = MODELS["t5"]
    with pytest.raises(ValueError, match="needs source and source_lengths"):
        decode.generate(model, params("t5"), PROMPTS, LENGTHS, jax.random.key(0), max_new_tokens=2)


def test_more_tokens_than_positions_are_an_error():
    config = dataclasses.replace(STYLES["gpt2"], num_layers=1, max_len=8)
    model = language_model(config)
    arguments = (model, random_params(model), np.array([[1, 2, 3]]), np.array([3]))
    with pytest.raises(ValueError, match=r"3 \+ 6 = 9 tokens, but model.max_len=8"):
        decode.generate(*arguments, jax.random.key(0), max_new_tokens=6)
    # inside of jit too, where shapes are known
    greedy = functools.partial(decode.greedy, model, max_new_tokens=6, eos_id=EOS)
    with pytest.raises(ValueError, match=r"3 \+ 6 = 9 tokens"):
        jax.jit(greedy)(*arguments[1:])
