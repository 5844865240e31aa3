import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data import corruption, counter

SPECIAL = frozenset({0, 1, 2, 3, 4})
MASK = 4
VOCAB = 50


def mask(tokens, *, seed=7, epoch=0, index=None, **changes):
    index = np.arange(len(tokens)) if index is None else index
    arguments = {
        "maskable": tokens >= 5,
        "keys": counter.bits(seed, np.broadcast_to(epoch, index.shape), index),
        "vocab_size": VOCAB,
        "special_ids": SPECIAL,
        "mask_id": MASK,
        "mask_fraction": 0.15,
        "mask_token_fraction": 0.8,
        "random_token_fraction": 0.1,
    }
    return corruption.mask_tokens(tokens, **(arguments | changes))


def rows(n, length):
    """[n, length] rows of ids that begin with [CLS], end in [SEP] and padding."""
    tokens = np.random.default_rng(0).integers(5, VOCAB, (n, length)).astype(np.int32)
    tokens[:, 0] = 2
    for row, real in zip(tokens, np.random.default_rng(1).integers(2, length, n)):
        row[real] = 3
        row[real + 1 :] = 0
    return tokens


@given(
    real=st.integers(0, 60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_mask_fraction_is_exact_in_each_row(real, fraction, seed, epoch):
    tokens = np.zeros((1, 64), np.int32)
    tokens[0, 1 : 1 + real] = 9
    _, targets, weights = mask(tokens, mask_fraction=fraction, seed=seed, epoch=epoch)
    assert weights.sum() == (max(1, round(fraction * real)) if real else 0)
    np.testing.assert_array_equal(targets, tokens)


def test_special_tokens_and_padding_are_never_touched_and_never_drawn():
    tokens = rows(400, 64)
    inputs, _, weights = mask(
        tokens, mask_fraction=0.5, mask_token_fraction=0.0, random_token_fraction=1.0
    )
    outside = tokens < 5
    assert not weights[outside].any()
    np.testing.assert_array_equal(inputs[outside], tokens[outside])
    drawn = inputs[weights > 0]
    assert set(drawn) == set(range(5, VOCAB))
    # each ordinary id equally often: chi-square with 44 degrees of freedom
    counts = np.bincount(drawn, minlength=VOCAB)[5:]
    expected = len(drawn) / 45
    assert abs(((counts - expected) ** 2 / expected).sum() - 44) < 4 * np.sqrt(88)


def test_unchosen_tokens_are_kept_and_fractions_are_as_requested():
    tokens = rows(2000, 128)
    inputs, targets, weights = mask(tokens)
    chosen = weights > 0
    np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
    n = chosen.sum()
    masked = (inputs[chosen] == MASK).mean()
    changed = ((inputs[chosen] != MASK) & (inputs[chosen] != targets[chosen])).mean()
    assert abs(masked - 0.8) < 4 * np.sqrt(0.16 / n)
    # one of 45 replacements is the id itself
    assert abs(changed - 0.1 * 44 / 45) < 4 * np.sqrt(0.09 / n)
    # whether a token is replaced does not decide what by
    assert set(inputs[chosen & (inputs != MASK) & (inputs != targets)]) == set(range(5, VOCAB))
    assert (inputs.dtype, targets.dtype, weights.dtype) == (np.int32, np.int32, np.float32)


def test_every_position_is_chosen_equally_often():
    tokens = np.full((20_000, 20), 9, np.int32)
    _, _, weights = mask(tokens)
    counts = weights.sum(axis=0)
    # 3 of 20 positions per row without replacement: the variance of a position is n p (1 - p), of the sum 0
    chi_square = ((counts - 3000) ** 2 / (20_000 * 0.15 * 0.85)).sum() * 19 / 20
    assert chi_square < 19 + 4 * np.sqrt(38)
    # and neighbours are chosen together as often as any two: p2 = 3/20 * 2/19
    both = (weights[:, 1:] * weights[:, :-1]).mean()
    assert abs(both - 3 / 20 * 2 / 19) < 4 * np.sqrt(0.0158 / weights[:, 1:].size)


@settings(deadline=None)
@given(picked=st.lists(st.integers(0, 29), min_size=1, max_size=6), whole_word=st.booleans())
def test_a_row_is_the_same_in_any_batch(picked, whole_word):
    tokens = rows(30, 24)
    starts = tokens % 3 > 0 if whole_word else None
    index, epoch = np.arange(30) * 1000, np.arange(30) % 4
    whole = mask(tokens, word_starts=starts, index=index, epoch=epoch)
    part = mask(
        tokens[picked],
        word_starts=None if starts is None else starts[picked],
        index=index[picked],
        epoch=epoch[picked],
    )
    for a, b in zip(whole, part):
        np.testing.assert_array_equal(a[picked], b)


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"epoch": np.ones(50, int)}, {"index": np.arange(50) + 50}]
)
def test_seed_epoch_and_index_each_change_the_choice(change):
    tokens = np.full((50, 100), 9, np.int32)
    first, second = mask(tokens)[2], mask(tokens, **change)[2]
    # independent choices of 15 of 100 share 2.25 on average
    assert abs((first * second).sum(axis=1).mean() - 2.25) < 0.8


def test_whole_words_are_chosen_together_and_match_the_fraction_on_average():
    tokens = np.full((500, 64), 9, np.int32)
    starts = np.random.default_rng(2).random((500, 64)) < 0.5
    starts[:, 0] = True
    inputs, _, weights = mask(
        tokens, word_starts=starts, mask_token_fraction=1.0, random_token_fraction=0.0
    )
    for row, begins in zip(weights, starts):
        for word in np.split(row, np.flatnonzero(begins)[1:]):
            assert len(set(word)) == 1
    # 10 tokens are wanted, the last word may go beyond
    assert weights.sum(axis=1).min() >= 10
    assert 10 <= weights.sum(axis=1).mean() < 12
    np.testing.assert_array_equal(inputs == MASK, weights > 0)


def test_special_tokens_beside_a_word_are_not_chosen():
    tokens = np.array([[2, 9, 9, 9, 3, 0, 0]])
    starts = np.array([[True, True, False, False, True, True, True]])
    _, _, weights = mask(tokens, word_starts=starts)
    np.testing.assert_array_equal(weights, [[0, 1, 1, 1, 0, 0, 0]])


def spans_of(row):
    """Lengths of the runs of ones."""
    edges = np.flatnonzero(np.diff(row, prepend=0, append=0))
    return edges[1::2] - edges[::2]


def test_runs_of_words_have_the_right_lengths_and_exact_fraction():
    tokens = np.full((300, 512), 9, np.int32)
    everywhere = np.ones(tokens.shape, bool)
    chances = corruption.geometric_chances(0.2, 10)
    assert abs(chances @ np.arange(1, 11) - 3.8) < 0.01  # SpanBERT, section 3.1
    keys = counter.bits(3, np.arange(300))
    units = corruption.unit_starts(everywhere, tokens < 5, keys, chances)
    lengths = np.diff(np.append(np.flatnonzero(units), units.size))
    lengths = lengths[: -len(tokens)]
    counts = np.bincount(lengths, minlength=11)[1:11]
    # the last run of each row is cut: a few too many short ones
    np.testing.assert_allclose(counts / counts.sum(), chances, atol=0.01)
    _, _, weights = mask(tokens, word_starts=everywhere, units=units)
    assert (weights.sum(axis=1) == round(0.15 * 512)).all()
    mean = np.mean(np.concatenate([spans_of(row) for row in weights]))
    # neighbouring runs may be chosen both
    assert 3.6 < mean < 5.2


def test_runs_consist_of_whole_words_without_special_tokens():
    tokens = rows(300, 96)
    starts = (tokens % 3 > 0) | (tokens < 5)
    starts[:, 1:] |= tokens[:, :-1] < 5
    starts[:, 0] = True
    keys = counter.bits(0, np.arange(300))
    units = corruption.unit_starts(starts, tokens < 5, keys, corruption.ngram_chances(3))
    assert not (units & ~starts).any()
    inputs, _, weights = mask(tokens, word_starts=starts, units=units, mask_token_fraction=0.5)
    assert not weights[tokens < 5].any()
    for row, begins, real in zip(weights, starts, (tokens >= 5).sum(axis=1)):
        for word in np.split(row, np.flatnonzero(begins)[1:]):
            assert len(set(word)) == 1
        assert row.sum() >= max(round(0.15 * real), min(real, 1))
    # a run is masked as a whole or not at all
    first = np.maximum.accumulate(np.where(units, np.arange(96), 0), axis=1)
    for row, position in zip(*np.nonzero(weights)):
        run = (first[row] == first[row, position]) & (weights[row] > 0)
        assert len(set(inputs[row, run] == MASK)) == 1


def test_ngrams_have_the_probabilities_of_albert():
    np.testing.assert_allclose(corruption.ngram_chances(3), [6 / 11, 3 / 11, 2 / 11])


def test_runs_of_a_row_are_the_same_in_any_batch():
    starts = np.random.default_rng(0).random((9, 30)) < 0.6
    keys = counter.bits(5, np.arange(9))
    chances = corruption.geometric_chances(0.3, 4)
    whole = corruption.unit_starts(starts, ~starts, keys, chances)
    part = corruption.unit_starts(starts[4:6], ~starts[4:6], keys[4:6], chances)
    np.testing.assert_array_equal(whole[4:6], part)
