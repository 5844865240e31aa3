import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data import packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.ragged import Ragged
from jaxlm.data.token_files import TokenFiles


def corpus(lengths):
    """Documents with ids 1, 2, 3, ... over the whole corpus."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return TokenDocuments(np.arange(1, ends[-1] + 1).astype(np.uint16), ends)


def pieces_of(lengths):
    """Pieces with these lengths."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return TokenDocuments(np.zeros(sum(lengths), np.uint16), ends)


def window_by_hand(docs, index, seq_len, offset):
    """One window token by token, from the definition."""
    owner = np.repeat(np.arange(len(docs)), docs.lengths)
    row = {name: [] for name in ("tokens", "targets", "segment_ids", "positions", "weights")}
    seen = []
    for t in range(seq_len):
        here = index * seq_len + offset + t
        if here >= docs.num_tokens:
            for name in row:
                row[name].append(0)
            continue
        if owner[here] not in seen:
            seen.append(owner[here])
            began = t
        has_next = here + 1 < docs.num_tokens
        row["tokens"].append(docs.tokens[here])
        row["targets"].append(docs.tokens[here + 1] if has_next else 0)
        row["segment_ids"].append(len(seen))
        row["positions"].append(t - began)
        row["weights"].append(float(has_next and owner[here] == owner[here + 1]))
    return row


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    seq_len=st.integers(1, 7),
    data=st.data(),
)
def test_windows_match_their_definition(lengths, seq_len, data):
    docs = corpus(lengths)
    count = packing.num_windows(docs, seq_len)
    indices = np.array(data.draw(st.lists(st.integers(0, count), min_size=1, max_size=4)))
    offset = np.array([data.draw(st.integers(0, seq_len)) for _ in indices])
    got = packing.windows(docs, indices, seq_len, offset)
    for i, (index, off) in enumerate(zip(indices, offset)):
        for name, want in window_by_hand(docs, index, seq_len, off).items():
            np.testing.assert_array_equal(got[name][i], want, err_msg=f"{name} of row {i}")


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    marks=st.sampled_from([(101, None), (None, 102), (101, 102)]),
    seq_len=st.integers(1, 7),
    data=st.data(),
)
def test_windows_put_control_tokens_around_documents(lengths, marks, seq_len, data):
    docs = corpus(lengths)
    texts = [[x for x in (marks[0], *docs[i], marks[1]) if x is not None] for i in range(len(docs))]
    written = TokenDocuments(np.concatenate(texts), np.cumsum([len(t) for t in texts]))
    added = sum(mark is not None for mark in marks)
    count = packing.num_windows(docs, seq_len, added)
    assert count == packing.num_windows(written, seq_len)
    indices = np.array(data.draw(st.lists(st.integers(0, count), min_size=1, max_size=4)))
    offset = np.array([data.draw(st.integers(0, seq_len)) for _ in indices])
    got = packing.windows(docs, indices, seq_len, offset, prefix_id=marks[0], suffix_id=marks[1])
    for name, want in packing.windows(written, indices, seq_len, offset).items():
        np.testing.assert_array_equal(got[name], want, err_msg=name)


def test_windows_have_the_documented_dtypes_and_one_offset_applies_to_all_rows():
    docs = corpus([5, 4])
    got = packing.windows(docs, np.array([0, 1]), 4, 1)
    assert {name: a.dtype for name, a in got.items()} == {
        "tokens": np.int32,
        "targets": np.int32,
        "segment_ids": np.int32,
        "positions": np.int32,
        "weights": np.float32,
    }
    np.testing.assert_array_equal(got["tokens"], [[2, 3, 4, 5], [6, 7, 8, 9]])


def test_every_token_but_the_first_is_a_target_once():
    docs = corpus([3, 1, 6, 2])
    for seq_len in range(1, 15):
        count = packing.num_windows(docs, seq_len)
        got = packing.windows(docs, np.arange(count), seq_len)
        targets = got["targets"][got["targets"] > 0]
        np.testing.assert_array_equal(targets, docs.tokens[1:])
        assert (got["targets"] > 0).any(axis=1).all()


def test_a_corpus_shorter_than_a_window_gives_one_padded_window():
    docs = corpus([3])
    assert packing.num_windows(docs, 8) == 1
    got = packing.windows(docs, np.array([0]), 8)
    np.testing.assert_array_equal(got["tokens"][0], [1, 2, 3, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(got["weights"][0], [1, 1, 0, 0, 0, 0, 0, 0])
    assert packing.num_windows(corpus([1]), 8) == 1


def test_windows_read_memory_mapped_files(tmp_path):
    docs = corpus([7, 5, 9])
    docs.tokens.tofile(tmp_path / "tokens")
    docs.ends.tofile(tmp_path / "ends")
    mapped = TokenDocuments(
        np.memmap(tmp_path / "tokens", np.uint16, "r"), np.memmap(tmp_path / "ends", np.int64, "r")
    )
    for name, array in packing.windows(docs, np.arange(3), 6).items():
        again = packing.windows(mapped, np.arange(3), 6)[name]
        assert type(again) is np.ndarray
        np.testing.assert_array_equal(again, array)


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=9).filter(any),
    capacity=st.integers(1, 7),
)
def test_long_documents_are_cut_into_full_pieces_and_a_rest(lengths, capacity):
    docs = corpus(lengths)
    pieces = packing.split_long(docs, capacity)
    want = [
        doc[i : i + capacity]
        for doc in map(docs.__getitem__, range(len(docs)))
        for i in range(0, len(doc), capacity)
    ]
    assert [list(pieces[i]) for i in range(len(pieces))] == [list(piece) for piece in want]
    assert pieces.tokens is docs.tokens


def best_fit_decreasing(lengths, capacity):
    """Free space of each row, by the textbook algorithm: the fullest row in which the piece fits."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fits = [r for r in rooms if r >= length]
        if fits:
            rooms[rooms.index(min(fits))] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda c: st.tuples(st.lists(st.integers(1, c), max_size=40), st.just(c))
    )
)
def test_packing_is_best_fit_decreasing(case):
    lengths, capacity = case
    sizes = np.arange(capacity + 1)
    packed = packing.pack(pieces_of(lengths), sizes, capacity)
    assert sorted(packed.pieces.tolist()) == list(range(len(lengths)))
    rows = np.split(packed.pieces, packed.ends[:-1]) if len(packed) else []
    rooms = sorted(capacity - sum(lengths[p] for p in row) for row in rows)
    assert rooms == best_fit_decreasing(lengths, capacity)
    used = packed.efficiency(sizes, capacity)
    assert used == pytest.approx(sum(lengths) / max(1, len(packed) * capacity))


def test_real_lengths_pack_densely():
    # log-normal, as lengths of reviews and articles are
    docs = corpus(np.random.default_rng(0).lognormal(5.3, 0.8, 2000).astype(int) + 1)
    docs = TokenDocuments(np.zeros(docs.num_tokens, np.uint16), docs.ends)
    sizes = np.arange(2, 513)
    pieces, packed = packing.cut_and_pack(docs, sizes, 512)
    assert pieces.lengths.max() == 510
    assert packed.efficiency(sizes, 512) > 0.99


def test_packing_in_groups_keeps_pieces_and_rows_whole(monkeypatch):
    lengths = np.random.default_rng(1).integers(1, 20, 100)
    monkeypatch.setattr(packing, "_GROUP", 30)
    packed = packing.pack(pieces_of(lengths), np.arange(21), 20)
    np.testing.assert_array_equal(packed.counts, np.bincount(lengths, minlength=21))
    assert sorted(packed.pieces.tolist()) == list(range(100))
    rows = np.split(packed.pieces, packed.ends[:-1])
    assert all(0 < lengths[row].sum() <= 20 for row in rows)
    assert all(len(set(row // 30)) == 1 for row in rows)
    assert packed.ends[-1] == 100


def test_a_piece_larger_than_the_row_is_rejected():
    with pytest.raises(AssertionError, match="does not fit"):
        packing.pack(pieces_of([5]), np.arange(6), 4)
    with pytest.raises(AssertionError, match="split"):
        packing.pack(pieces_of([5]), np.arange(5), 4)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    prefix=st.sampled_from([None, 101]),
    suffix=st.sampled_from([None, 102]),
    data=st.data(),
)
def test_packed_rows_have_whole_pieces_between_control_tokens(lengths, prefix, suffix, data):
    docs = corpus(lengths)
    added = (prefix is not None) + (suffix is not None)
    packed = packing.pack(docs, np.arange(added, 13), 12)
    indices = np.array(data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=4)))
    got = packing.packed_rows(
        docs, packed, indices, capacity=12, prefix_id=prefix, suffix_id=suffix, pad_id=99
    )
    rows = np.split(packed.pieces, packed.ends[:-1])
    for i, index in enumerate(indices):
        tokens, segments, positions = [], [], []
        for number, piece in enumerate(rows[index]):
            marked = [x for x in [prefix, *docs[piece], suffix] if x is not None]
            tokens += marked
            segments += [number + 1] * len(marked)
            positions += range(len(marked))
        pad = 12 - len(tokens)
        np.testing.assert_array_equal(got["tokens"][i], tokens + [99] * pad)
        np.testing.assert_array_equal(got["segment_ids"][i], segments + [0] * pad)
        np.testing.assert_array_equal(got["positions"][i], positions + [0] * pad)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10)), min_size=1, max_size=40),
)
def test_pairs_fit_on_both_sides(lengths):
    inputs, targets = np.array(lengths).T
    # numbers in the place of lengths, as if each piece were of a length of its own
    sizes, capacity = packing.pair_sizes(inputs, targets, 30, 10)
    packed = packing.pack(pieces_of(range(1, len(sizes) + 1)), np.append(0, sizes), capacity)
    assert sorted(packed.pieces.tolist()) == list(range(len(lengths)))
    for row in np.split(packed.pieces, packed.ends[:-1]):
        assert inputs[row].sum() <= 30
        assert targets[row].sum() <= 10
    # two rows that could be one were not left apart, but for the rounding to the larger side
    larger = np.maximum(inputs / 30, targets / 10)
    full = sorted(larger[row].sum() for row in np.split(packed.pieces, packed.ends[:-1]))
    assert len(full) == 1 or full[0] + full[1] > 0.95


def test_pairs_are_in_the_same_rows_and_segments():
    sequences = Ragged(np.arange(1, 12), np.array([3, 2, 4, 2]))
    got = packing.build_rows(sequences, np.array([0, 0, 2, 2]), 3, 7, pad_id=0)
    want = [[1, 2, 3, 4, 5, 0, 0], [0] * 7, [6, 7, 8, 9, 10, 11, 0]]
    np.testing.assert_array_equal(got["tokens"], want)
    np.testing.assert_array_equal(got["segment_ids"][0], [1, 1, 1, 2, 2, 0, 0])
    np.testing.assert_array_equal(got["positions"][2], [0, 1, 2, 3, 0, 1, 0])
    with pytest.raises(AssertionError):
        packing.build_rows(sequences, np.array([0, 0, 0, 2]), 3, 7, pad_id=0)


def stored(folder, lengths):
    """Documents with these lengths, in a file."""
    np.arange(sum(lengths), dtype=np.uint16).tofile(folder / "train-00000.tokens")
    paths, counts = [folder / "train-00000.tokens"], [sum(lengths)]
    files = TokenFiles(paths, counts, np.dtype(np.uint16), 1 << 16)
    return TokenDocuments(files, np.cumsum(lengths))


def test_the_packing_of_many_documents_is_cached_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_MIN_CACHED_PIECES", 50)
    lengths = np.random.default_rng(0).integers(1, 40, 100)
    sizes = np.arange(2, 33)
    docs = stored(tmp_path, lengths)
    packing.cut_and_pack(stored(tmp_path, lengths[:20]), sizes, 32)
    assert not (tmp_path / "packings").exists()
    first = packing.cut_and_pack(docs, sizes, 32)
    longer = packing.cut_and_pack(docs, np.arange(2, 65), 64)
    fresh = packing.split_long(docs, 30), packing.pack(packing.split_long(docs, 30), sizes, 32)
    assert not [p for p in (tmp_path / "packings").iterdir() if p.name.startswith(".")]

    def refuse(*_):
        raise AssertionError("packed again")

    monkeypatch.setattr(packing, "pack", refuse)
    for pieces, packed in (first, packing.cut_and_pack(docs, sizes, 32)):
        np.testing.assert_array_equal(pieces.ends, fresh[0].ends)
        assert pieces.tokens is docs.tokens
        for name, array in vars(fresh[1]).items():
            np.testing.assert_array_equal(getattr(packed, name), array, err_msg=name)
    again = packing.cut_and_pack(docs, np.arange(2, 65), 64)
    assert len(again[1]) == len(longer[1]) < len(first[1])
    for other in (
        (docs, sizes + 1, 33),
        (docs, sizes, 34),
        (stored(tmp_path, lengths[::-1]), sizes, 32),
    ):
        with pytest.raises(AssertionError, match="packed again"):
            packing.cut_and_pack(*other)


def test_the_cached_packing_is_readable_by_all_and_rebuilt_when_corrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_MIN_CACHED_PIECES", 50)
    docs = stored(tmp_path, np.random.default_rng(0).integers(1, 40, 100))
    want = packing.cut_and_pack(docs, np.arange(2, 33), 32)
    [kept] = (tmp_path / "packings").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o755
    whole = {path.name: path.read_bytes() for path in kept.iterdir()}
    damages = (
        lambda: (kept / "pieces.npy").unlink(),
        lambda: (kept / "ends.npy").write_bytes(b""),
        lambda: (kept / "piece_ends.npy").write_bytes(whole["piece_ends.npy"][:-8]),
        lambda: (kept / "counts.npy").write_bytes(b"no array"),
    )
    for damage in damages:
        damage()
        got = packing.cut_and_pack(docs, np.arange(2, 33), 32)
        np.testing.assert_array_equal(got[0].ends, want[0].ends)
        np.testing.assert_array_equal(got[1].pieces, want[1].pieces)
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == whole


def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_MIN_CACHED_PIECES", 50)
    docs = stored(tmp_path, [8] * 100)
    # the name of the folder is taken
    (tmp_path / "packings").write_text("")
    assert len(packing.cut_and_pack(docs, np.arange(9), 32)[1]) == 25
    (tmp_path / "packings").unlink()

    # half way
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert len(packing.cut_and_pack(docs, np.arange(9), 32)[1]) == 25
    assert not list((tmp_path / "packings").iterdir())
