"""Penalties against loops over the tokens; rows with different settings in one batch."""

import jax
import numpy as np

from jaxlm.ops import penalties

ROWS, ROOM, VOCAB = 12, 10, 6
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, VOCAB)).astype(np.float32)
TOKENS = RNG.integers(0, 4, (ROWS, ROOM)).astype(np.int32)
LENGTHS = RNG.integers(1, ROOM + 1, ROWS).astype(np.int32)


def test_tokens_that_have_occurred_are_penalized():
    penalty = RNG.choice([1.0, 1.5, 0.5], ROWS).astype(np.float32)
    got = jax.jit(penalties.penalize_seen)(LOGITS, TOKENS, LENGTHS, penalty)
    want = LOGITS.copy()
    for row in range(ROWS):
        for token in set(TOKENS[row, : LENGTHS[row]]):
            x = LOGITS[row, token]
            want[row, token] = x * penalty[row] if x < 0 else x / penalty[row]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_generated_tokens_are_penalized_by_their_count():
    starts = np.minimum(RNG.integers(0, ROOM, ROWS), LENGTHS).astype(np.int32)
    presence, frequency = RNG.normal(size=(2, ROWS)).astype(np.float32)
    got = jax.jit(penalties.penalize_frequent)(LOGITS, TOKENS, starts, LENGTHS, presence, frequency)
    want = LOGITS.copy()
    for row in range(ROWS):
        generated = TOKENS[row, starts[row] : LENGTHS[row]].tolist()
        for token in set(generated):
            want[row, token] -= presence[row] + frequency[row] * generated.count(token)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_sequences_do_not_come_twice():
    for size in (1, 2, 3, 4):
        sizes = np.where(np.arange(ROWS) % 3 == 0, 0, size).astype(np.int32)
        got = np.asarray(jax.jit(penalties.ban_repeated_ngrams)(LOGITS, TOKENS, LENGTHS, sizes))
        for row in range(ROWS):
            text = TOKENS[row, : LENGTHS[row]].tolist()
            seen = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
            end = text[len(text) - size + 1 :] if size > 1 else []
            for token in range(VOCAB):
                is_banned = sizes[row] > 0 and (*end, token) in seen
                assert got[row, token] == (-np.inf if is_banned else LOGITS[row, token])


def test_only_tokens_whose_bit_is_set_are_allowed():
    logits = RNG.normal(size=(3, 70)).astype(np.float32)
    allowed = RNG.random((3, 96)) < 0.5
    bits = np.packbits(allowed, axis=1, bitorder="little").view(np.int32)
    got = jax.jit(penalties.allow)(logits, bits)
    np.testing.assert_array_equal(got, np.where(allowed[:, :70], logits, -np.inf))
