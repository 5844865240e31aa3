"""Encoders beyond the suite over all architectures: token types, and both kinds of positions."""

import dataclasses

import numpy as np
from styles import STYLES, jit_hidden, params

TOKENS = np.random.default_rng(0).integers(1, 40, (2, 8))


def test_token_types_are_zero_if_not_given_and_change_the_result():
    config, tree = STYLES["bert"], params("bert")
    types = np.array([[0] * 4 + [1] * 4] * 2)
    plain = jit_hidden(config, tree, TOKENS)
    np.testing.assert_array_equal(plain, jit_hidden(config, tree, TOKENS, token_types=0 * types))
    pair = jit_hidden(config, tree, TOKENS, token_types=types)
    assert np.abs(pair - plain).max() > 0.1


def test_without_positions_the_order_of_tokens_does_not_matter():
    config = dataclasses.replace(STYLES["sinusoidal"], positions="none")
    order = np.random.default_rng(1).permutation(8)
    tree = params("sinusoidal")
    shuffled = jit_hidden(config, tree, TOKENS[:, order])
    np.testing.assert_allclose(shuffled, jit_hidden(config, tree, TOKENS)[:, order], atol=1e-5)
    # and with them it does
    tokens = STYLES["sinusoidal"], tree
    changed = jit_hidden(*tokens, TOKENS[:, order]) - jit_hidden(*tokens, TOKENS)[:, order]
    assert np.abs(changed).max() > 0.1


def test_rotary_positions_are_relative():
    config, tree = STYLES["modernbert"], params("modernbert")
    positions = np.broadcast_to(np.arange(8), (2, 8))
    here = jit_hidden(config, tree, TOKENS, positions=positions)
    there = jit_hidden(config, tree, TOKENS, positions=positions + 5)
    np.testing.assert_allclose(here, there, atol=1e-4)
