"""Hashes of words and windows, and which of them are repeated, against brute force."""

import collections
import random

import numpy as np
import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document

from jaxlm.refine import words
from jaxlm.refine.analysis import analyse
from jaxlm.refine.hashing import covered, window_hashes
from jaxlm.refine.repeated import HashWriter, Repeats, find, partition_bits
from jaxlm.refine.substrings import CutSubstrings, Substrings


def test_equal_texts_have_equal_hashes_wherever_they_stand():
    text = "one two 三 one two\0 \0one ab a b 😀 two"
    spans = words.spans(text, "en")
    hashes = analyse(text).hashes
    by_text = {}
    for (start, end), value in zip(spans, hashes):
        assert by_text.setdefault(text[start:end], value) == value
    assert len(set(by_text.values())) == len(by_text)


def test_a_window_is_the_sequence_of_its_words():
    values = np.array([5, 7, 9, 5, 7, 9, 7, 5], np.uint64)
    windows = window_hashes(values, 3)
    tuples = [tuple(values[i : i + 3]) for i in range(6)]
    for i in range(6):
        for j in range(6):
            assert (windows[i] == windows[j]) == (tuples[i] == tuples[j])
    assert len(window_hashes(values, 9)) == 0


@pytest.mark.parametrize("length", [1, 2, 5])
def test_covered_words(length):
    rng = np.random.default_rng(0)
    windows = rng.random(30) < 0.2
    expected = np.zeros(30 + length - 1, bool)
    for i in np.flatnonzero(windows):
        expected[i : i + length] = True
    np.testing.assert_array_equal(covered(windows, length), expected)


@pytest.mark.parametrize("keep", ["first", "none"])
@pytest.mark.parametrize("bits", [0, 3])
def test_marks_are_those_of_a_dictionary(tmp_path, keep, bits):
    rng = np.random.default_rng(1)
    # 64-bit numbers of which some are repeated, over all partitions
    pool = rng.integers(0, 1 << 64, 400, np.uint64)
    tasks = [rng.choice(pool, n) for n in (150, 0, 90)]
    for task, hashes in enumerate(tasks):
        writer = HashWriter(tmp_path, task, bits)
        for part in np.array_split(hashes, 5):
            writer.add(part)
        writer.close()
    marked = sum(find(tmp_path, p, keep) for p in range(1 << bits))

    count = collections.Counter(np.concatenate(tasks).tolist())
    seen = set()
    total = 0
    for task, hashes in enumerate(tasks):
        expected = []
        for value in hashes.tolist():
            repeated = count[value] > 1
            expected.append(repeated and (keep == "none" or value in seen))
            seen.add(value)
        repeats = Repeats(tmp_path, task, bits)
        got = np.concatenate([repeats.take(part) for part in np.array_split(hashes, 7)])
        np.testing.assert_array_equal(got, expected)
        total += sum(expected)
    assert marked == total


def test_partitions_fit_into_memory():
    for hashes in (0, 1, 1000, 10**9, 10**12):
        bits = partition_bits(hashes, 1 << 30)
        assert bits == 10 or 16 * hashes / (1 << bits) <= 1 << 30


def _brute_force(documents, length, keep):
    """Characters to cut from each document, by comparing every window with every other, as a suffix array would."""
    tokens = [[d[a:b] for a, b in words.spans(d, "en")] for d in documents]
    places = collections.defaultdict(list)
    for i, each in enumerate(tokens):
        for j in range(len(each) - length + 1):
            places[tuple(each[j : j + length])].append((i, j))
    cut = [set() for _ in documents]
    for found in places.values():
        for i, j in found[1:] if keep == "first" and len(found) > 1 else found:
            if len(found) > 1:
                cut[i].update(range(j, j + length))
    return cut


def _refined(tmp_path, documents, settings, tasks, bits):
    shares = [list(enumerate(documents))[t::tasks] for t in range(tasks)]
    for task, share in enumerate(shares):
        step = settings.hash(tmp_path, bits)
        passed = list(step.run(iter([Document(text=d, id=str(i)) for i, d in share]), task))
        assert [d.text for d in passed] == [d for _, d in share]
    for p in range(1 << bits):
        find(tmp_path, p, settings.keep)
    result = {}
    for task, share in enumerate(shares):
        rule = CutSubstrings(settings=settings, folder=tmp_path, bits=bits).for_task(task)
        batch = [Document(text=d, id=str(i)) for i, d in share]
        for (i, _), document, drop in zip(share, batch, rule.check_batch(batch), strict=True):
            result[i] = (document.text, drop)
    return [result[i] for i in range(len(documents))]


@pytest.mark.parametrize("keep", ["none", "first"])
@pytest.mark.parametrize(("tasks", "bits"), [(1, 0), (3, 2)])
def test_substrings_are_those_of_brute_force(tmp_path, keep, tasks, bits):
    rng = random.Random(keep + str(tasks))
    vocabulary = ["a", "b", "c", "d", "e", "日", "本", "!", "f1"]
    documents = []
    for _ in range(40):
        text = " ".join(rng.choice(vocabulary) for _ in range(rng.randrange(0, 60)))
        if documents and rng.random() < 0.5:
            other = rng.choice(documents)
            start = rng.randrange(0, len(other) + 1)
            text += " " + other[start : start + rng.randrange(5, 60)] + " " + rng.choice(vocabulary)
        documents.append(text)
    settings = Substrings(length=6, keep=keep, min_characters=0)
    # the first occurrence is the first of the first task, so brute force sees the documents in that order
    order = [i for t in range(tasks) for i in range(t, len(documents), tasks)]
    cut = dict(zip(order, _brute_force([documents[i] for i in order], 6, keep), strict=True))
    refined = _refined(tmp_path, documents, settings, tasks, bits)
    assert any(cut.values())
    for i, text in enumerate(documents):
        spans = words.spans(text, "en")
        kept = [text[a:b] for k, (a, b) in enumerate(spans) if k not in cut[i]]
        got = refined[i][0]
        assert [got[a:b] for a, b in words.spans(got, "en")] == kept, (i, text)


def test_a_span_of_49_words_stays_and_documents_do_not_run_into_each_other(tmp_path):
    shared = [f"s{i}" for i in range(60)]

    def text(name, start, end):
        return " ".join([f"{name}{i}" for i in range(30)] + shared[start:end] + [f"{name}end"])

    documents = [text("a", 0, 49), text("b", 0, 49), text("c", 0, 50), text("d", 10, 60)]
    # a window over the border of two documents would be found here
    documents += [" ".join(shared[:25]), " ".join(shared[25:50])]
    refined = _refined(tmp_path, documents, Substrings(), 1, 0)
    assert [text == before for (text, _), before in zip(refined, documents)] == [True] * 6
    documents += [text("e", 0, 50)]
    refined = _refined(tmp_path / "more", documents, Substrings(), 1, 0)
    assert [text == before for (text, _), before in zip(refined, documents)] == [
        True, True, False, True, True, True, False,
    ]  # fmt: skip
    assert "s0" not in refined[2][0].split()
    assert refined[2][0].startswith("c0 ")
    assert refined[2][0].endswith(" cend")


def test_little_that_is_left_is_dropped_and_told(tmp_path):
    page = " ".join(f"w{i}" for i in range(80))
    documents = [page, page + " tail", "short but alone"]
    refined = _refined(tmp_path, documents, Substrings(), 1, 0)
    assert refined[0][1].rule == "too_little_left"
    assert (refined[1][1].value, refined[1][1].threshold) == (4, 20)
    assert refined[2] == ("short but alone", None)


@pytest.mark.parametrize("field", [{"length": 1}, {"memory": 5}])
def test_settings_are_checked(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        Substrings(**field)
