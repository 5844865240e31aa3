"""Span corruption, denoising, fill in the middle, sentence pairs: corruptions of pieces of any length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data import corruption, counter
from jaxlm.data.corruption import denoising, spans
from jaxlm.data.ragged import Ragged

SENTINELS = np.arange(100, 400)
MASK = 99


def pieces(lengths):
    """Distinct ids from 1000 on, so that every token can be traced."""
    return Ragged(np.arange(1000, 1000 + sum(lengths)), np.array(lengths, np.int64))


def keys(sequences, seed=0, epoch=0, first=0):
    return counter.bits(seed, epoch, first + np.arange(len(sequences.lengths)))


def restored(inputs, targets):
    """The text that inputs and targets of span corruption contain."""
    spans, current = {}, None
    for token in targets:
        if token in SENTINELS:
            current = token
            spans[current] = []
        else:
            spans[current].append(token)
    assert list(spans) == list(SENTINELS[: len(spans)])
    assert all(spans.values())
    return [t for token in inputs for t in (spans[token] if token in SENTINELS else [token])]


LENGTHS = st.lists(st.integers(1, 80), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    noise_fraction=st.sampled_from([0.1, 0.15, 0.5, 0.9]),
    mean_span=st.sampled_from([1.0, 3.0, 8.0, 64.0, None]),
    seed=st.integers(0, 9),
)
def test_inputs_and_targets_of_span_corruption_contain_the_text(
    lengths, noise_fraction, mean_span, seed
):
    text = pieces(lengths)
    inputs, targets = corruption.corrupt_spans(
        text,
        keys=keys(text, seed),
        noise_fraction=noise_fraction,
        mean_span=mean_span,
        sentinels=SENTINELS,
    )
    noise, count = spans.noise_counts(text.lengths, noise_fraction, mean_span)
    promised = corruption.corrupted_lengths(text.lengths, noise_fraction, mean_span)
    for got, want in zip((inputs, targets), promised):
        np.testing.assert_array_equal(got.lengths, want)
    for i, (source, shown, asked) in enumerate(zip(text.split(), inputs.split(), targets.split())):
        assert restored(shown, asked) == source.tolist()
        is_sentinel = np.isin(shown, SENTINELS)
        assert is_sentinel.sum() == count[i]
        # no two spans touch
        assert not (is_sentinel[1:] & is_sentinel[:-1]).any()
        assert len(asked) - count[i] == noise[i]
        length = len(source)
        assert noise[i] == np.clip(np.rint(length * noise_fraction), 1, max(length - 1, 1))


def test_every_token_is_noise_equally_often_and_spans_have_the_mean_length():
    text = pieces([20] * 20_000)
    inputs, targets = corruption.corrupt_spans(
        text, keys=keys(text), noise_fraction=0.3, mean_span=2.0, sentinels=SENTINELS
    )
    hidden = ~np.isin(text.values, inputs.values).reshape(-1, 20)
    assert (hidden.sum(axis=1) == 6).all()
    assert (targets.lengths == 9).all()
    counts = hidden.mean(axis=0)
    # 3 spans of 2 on average; only at the ends is there less that could cover a token:
    # the first is covered if the first of 4 gaps is empty, 91 of 455 ways
    assert np.abs(counts[3:-3] - counts[3:-3].mean()).max() < 0.02
    np.testing.assert_allclose(counts, counts[::-1], atol=0.02)
    assert abs(counts[0] - 0.2) < 0.012


def test_the_sequential_denoiser_removes_the_end():
    text = pieces([10, 1, 7])
    inputs, targets = corruption.corrupt_spans(
        text,
        keys=keys(text),
        noise_fraction=0.25,
        mean_span=None,
        sentinels=SENTINELS,
        at_end=True,
    )
    got = [(a.tolist(), b.tolist()) for a, b in zip(inputs.split(), targets.split())]
    assert got[0] == ([*range(1000, 1008), 100], [100, 1008, 1009])
    assert got[1] == ([100], [100, 1010])
    assert got[2] == ([*range(1011, 1016), 100], [100, 1016, 1017])


@pytest.mark.parametrize(("noise_fraction", "mean_span"), [(0.15, 3.0), (0.5, 3.0), (0.15, 64.0)])
@pytest.mark.parametrize(("room", "target_room"), [(512, None), (64, 64), (64, 10), (2, None)])
def test_the_longest_piece_fits_and_a_longer_one_does_not(
    noise_fraction, mean_span, room, target_room
):
    length = corruption.longest_piece(noise_fraction, mean_span, room, target_room)
    lengths = np.arange(1, 8 * room)
    inputs, targets = corruption.corrupted_lengths(lengths, noise_fraction, mean_span)
    fits = (inputs <= room) & (targets <= (target_room or 10**9))
    assert length == lengths[fits].max()


def test_t5_pieces_have_the_lengths_of_the_paper():
    # 512 inputs with their end come from 568 tokens, 114 targets (T5's random_spans_helper)
    length = corruption.longest_piece(0.15, 3.0, 511)
    inputs, targets = corruption.corrupted_lengths(np.array([length]), 0.15, 3.0)
    assert (length, inputs[0] + 1, targets[0] + 1) == (568, 512, 114)


def test_rows_that_are_too_short_are_an_error():
    with pytest.raises(ValueError, match="too short for a corrupted text"):
        corruption.longest_piece(0.15, 3.0, 512, 1)


def denoised(text, seed=0, ends=None, **changes):
    options = dict(
        mask_id=MASK,
        infill_fraction=0.3,
        mean_span=3.0,
        permute_fraction=1.0,
        delete_fraction=0.0,
        rotate_fraction=0.0,
    )
    ends = text.values % 7 == 0 if ends is None else ends
    return corruption.denoise(text, keys=keys(text, seed), sentence_ends=ends, **options | changes)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 9), permute=st.sampled_from([0.0, 0.5, 1.0]))
def test_infilling_replaces_the_exact_fraction_and_adds_nothing(lengths, seed, permute):
    text = pieces(lengths)
    shown = denoised(text, seed, permute_fraction=permute)
    assert (shown.lengths <= text.lengths).all()
    for source, row in zip(text.split(), shown.split()):
        kept = row[row != MASK]
        wanted = np.clip(np.rint(0.3 * len(source)), 1, max(len(source) - 1, 1))
        assert len(source) - len(kept) == wanted
        assert np.isin(kept, source).all()
        assert len(set(kept)) == len(kept)
        masked = row == MASK
        assert not (masked[1:] & masked[:-1]).any()
        if permute == 0:
            assert (np.diff(kept) > 0).all()


def test_span_lengths_are_poisson():
    text = pieces([400] * 300)
    shown = denoised(text, permute_fraction=0.0, infill_fraction=0.2)
    hidden = []
    for source, row in zip(text.split(), shown.split()):
        padded = np.concatenate([[source[0] - 1], row, [source[-1] + 1]])
        for place in np.flatnonzero(padded == MASK):
            hidden.append(padded[place + 1] - padded[place - 1] - 1)
    counts = np.bincount(hidden, minlength=7)[:7] / len(hidden)
    poisson = [np.exp(-3) * 3.0**k / float(np.prod(range(1, k + 1))) for k in range(7)]
    # the last span of each text is cut
    np.testing.assert_allclose(counts, poisson, atol=0.02)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_sentences_are_shuffled_whole_and_within_their_text(lengths, seed):
    text = pieces(lengths)
    ends = text.values % 5 == 0
    shown = denoised(text, seed, ends, infill_fraction=0.0)
    np.testing.assert_array_equal(shown.lengths, text.lengths)
    for source, row in zip(text.split(), shown.split()):
        stops = np.flatnonzero(source % 5 == 0) + 1
        want = sorted(tuple(part) for part in np.split(source, stops) if len(part))
        rest, got = list(row), []
        for sentence in sorted(want, key=lambda s: rest.index(s[0])):
            assert rest[: len(sentence)] == list(sentence)
            got.append(sentence)
            rest = rest[len(sentence) :]
        assert sorted(got) == want


def test_all_orders_of_sentences_occur_and_other_texts_are_unchanged():
    text = pieces([6] * 600)
    ends = np.tile([False, True], 1800)
    order = denoising.shuffled_sentences(
        text.lengths, ends, keys=keys(text), which=np.arange(600) % 2 == 0
    ).reshape(600, 6)
    local = order - np.arange(600)[:, None] * 6
    assert (local[1::2] == np.arange(6)).all()
    kinds, counts = np.unique(local[::2], axis=0, return_counts=True)
    assert len(kinds) == 6
    assert counts.min() > 25


def test_deletion_and_rotation():
    text = pieces([50, 1, 2, 30])
    gone = denoising.delete(text, keys=keys(text), fraction=0.3)
    assert gone.lengths.tolist() == [35, 1, 1, 21]
    assert (np.diff(gone.values) > 0).all()
    turned = denoising.rotate(text, np.array([3, 0, 1, 29]))
    rows = [row.tolist() for row in turned.split()]
    assert rows[0] == [*range(1003, 1050), 1000, 1001, 1002]
    assert rows[2] == [1052, 1051]
    shown = denoised(
        pieces([40] * 50), rotate_fraction=1.0, infill_fraction=0.0, permute_fraction=0.0
    )
    shifts = [(row[0] - 1000) % 40 for row in shown.split()]
    assert len(set(shifts)) > 25


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    seed=st.integers(0, 9),
    spm=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_moved_part_is_the_middle(lengths, seed, spm):
    text = pieces(lengths)
    got = corruption.fill_in_middle(
        text,
        keys=keys(text, seed),
        fraction=0.7,
        spm_fraction=spm,
        prefix_id=1,
        suffix_id=2,
        middle_id=3,
    )
    assert (got.lengths - text.lengths).tolist() == [3 * (1 in r) for r in got.split()]
    for source, row in zip(text.split(), got.split()):
        row = row.tolist()
        if 1 not in row:
            assert row == source.tolist()
            continue
        assert row[0] == 1
        suffix, middle = row.index(2), row.index(3)
        before, behind, last = row[1:suffix], row[suffix + 1 : middle], row[middle + 1 :]
        if suffix == 1 and spm:  # SPM (or PSM with an empty prefix, which reads the same)
            assert last + behind == source.tolist()
        else:
            assert spm < 1
            assert before + last + behind == source.tolist()


def test_the_fraction_of_fill_in_the_middle_and_its_cuts():
    text = pieces([9] * 20_000)
    got = corruption.fill_in_middle(
        text, keys=keys(text), fraction=0.5, spm_fraction=0.0, prefix_id=1, suffix_id=2, middle_id=3
    )
    changed = got.lengths == 12
    assert abs(changed.mean() - 0.5) < 0.015
    rows = got.values[np.repeat(changed, got.lengths)].reshape(-1, 12)
    prefix = np.argmax(rows == 2, axis=1) - 1
    # the smaller of two uniform cuts 0..9
    want = [(2 * (9 - k) + 1) / 100 for k in range(10)]
    np.testing.assert_allclose(np.bincount(prefix, minlength=10) / len(rows), want, atol=0.015)


def test_prefixes_leave_a_token_to_predict():
    lengths = np.repeat([0, 1, 2, 10], 2000)
    got = corruption.prefix_lengths(lengths, counter.bits(0, np.arange(8000))).reshape(4, -1)
    assert (got[:2] == 0).all()
    assert set(got[2]) == {0, 1}
    counts = np.bincount(got[3], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 140


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_sentence_order_pairs(lengths, seed):
    text = pieces(lengths)
    is_end = lambda ids: ids % 4 == 0
    begins = np.arange(len(lengths)) % 2 == 0
    pairs, first, labels = corruption.sentence_pairs(
        text, keys=keys(text, seed), sentence_ends=is_end(text.values), begins=begins
    )
    np.testing.assert_array_equal(pairs.lengths, text.lengths)
    rows = zip(text.split(), pairs.split(), begins, first, labels, strict=True)
    for source, row, begin, a, label in rows:
        stops = (np.flatnonzero(is_end(source)) + 1).tolist()
        edges = [0, *stops] if begin else stops
        assert (label == -1) == (len(edges) < 3)
        if label != 0:
            np.testing.assert_array_equal(row, source)
            assert label == -1 or a in edges[1:-1]
            continue
        # whole sentences are swapped, incomplete ones at the edges are not
        low, high = edges[0], edges[-1]
        cut = low + high - a
        assert cut in edges[1:-1]
        moved = [source[:low], source[cut:high], source[low:cut], source[high:]]
        np.testing.assert_array_equal(row, np.concatenate(moved))


def test_next_sentence_pairs_take_the_second_part_from_another_document():
    text = pieces([8] * 400)
    low = np.arange(400) // 2 * 2
    other = corruption.sample_outside(low, low + 2, 400, keys(text))
    assert ((other < low) | (other >= low + 2)).all()
    assert {other.min(), other.max()} <= {0, 1, 2, 397, 398, 399}
    assert len(set(other)) > 200
    lengths = np.arange(400) % 12
    foreign = Ragged(np.arange(lengths.sum()) + 10**6, lengths)
    pairs, first, labels = corruption.sentence_pairs(
        text,
        keys=keys(text),
        sentence_ends=text.values % 3 == 0,
        begins=np.zeros(400, bool),
        other=foreign,
    )
    assert 0.4 < labels.mean() < 0.6
    for i, (source, row, there) in enumerate(zip(text.split(), pairs.split(), foreign.split())):
        a = first[i]
        assert source[a - 1] % 3 == 0
        np.testing.assert_array_equal(row[:a], source[:a])
        assert labels[i] or len(there)
        want = source[a:] if labels[i] else there[: 8 - a]
        np.testing.assert_array_equal(row[a:], want)


def corruptions():
    spans = dict(noise_fraction=0.2, mean_span=2.0, sentinels=SENTINELS)
    middle = dict(fraction=0.8, spm_fraction=0.5, prefix_id=1, suffix_id=2, middle_id=3)
    bart = dict(
        mask_id=MASK,
        infill_fraction=0.3,
        mean_span=3.0,
        permute_fraction=0.7,
        delete_fraction=0.1,
        rotate_fraction=0.5,
    )
    ends = lambda text: text.values % 7 == 0
    return {
        "spans": lambda t, k: corruption.corrupt_spans(t, keys=k, **spans)[0],
        "targets": lambda t, k: corruption.corrupt_spans(t, keys=k, **spans)[1],
        "middle": lambda t, k: corruption.fill_in_middle(t, keys=k, **middle),
        "bart": lambda t, k: corruption.denoise(t, keys=k, sentence_ends=ends(t), **bart),
        "order": lambda t, k: corruption.sentence_pairs(
            t, keys=k, sentence_ends=ends(t), begins=np.ones(len(t.lengths), bool)
        )[0],
    }


@pytest.mark.parametrize("name", corruptions())
def test_a_piece_is_corrupted_by_its_key_alone(name):
    corrupt = corruptions()[name]
    text = pieces([30, 1, 17, 60, 2, 44])
    whole = corrupt(text, keys(text)).split()
    picked = [3, 0, 3, 4]
    part = Ragged(np.concatenate([text.split()[i] for i in picked]), text.lengths[picked])
    for i, row in zip(picked, corrupt(part, keys(text)[picked]).split()):
        np.testing.assert_array_equal(row, whole[i])
    for other in (dict(seed=1), dict(epoch=1), dict(first=10)):
        again = corrupt(text, keys(text, **other)).split()
        assert not all(np.array_equal(a, b) for a, b in zip(whole, again))
    nothing = corrupt(Ragged(text.values[:0], text.lengths[:0]), keys(text)[:0])
    assert len(nothing.values) == 0
