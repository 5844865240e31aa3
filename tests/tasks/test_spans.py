"""Spans in sequences of tags, as seqeval finds and scores them; tags from spans of characters."""

import warnings

import numpy as np
import pytest

from jaxlm.data.bad_rows import BadRow
from jaxlm.tasks.downstream import sentences, spans
from jaxlm.tasks.downstream.spans import Entity


@pytest.mark.parametrize(
    ("tags", "want"),
    # what seqeval 1.2.2 gives
    [
        ("B-A I-A O B-B", [("A", 0, 2), ("B", 3, 4)]),
        ("I-A I-A O", [("A", 0, 2)]),
        ("O I-A B-A", [("A", 1, 2), ("A", 2, 3)]),
        ("B-A I-B I-B", [("A", 0, 1), ("B", 1, 3)]),
        ("B-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("S-A B-B E-B I-B", [("A", 0, 1), ("B", 1, 3), ("B", 3, 4)]),
        ("E-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B I O", [("_", 0, 2)]),
        ("B-A-B I-A-B", [("A-B", 0, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_of_odd_sequences(tags, want):
    assert spans.entities(tags.split()) == [Entity(*x) for x in want]


def test_scores_are_those_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(0)
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER"]
    for size in (4, len(tags)):
        for _ in range(150):
            lengths = rng.integers(1, 12, 5)
            true = [list(rng.choice(tags[:size], n)) for n in lengths]
            keep = 0.6
            found = [
                [t if rng.random() < keep else str(rng.choice(tags[:size])) for t in row]
                for row in true
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                want = {
                    "accuracy": seqeval.accuracy_score(true, found),
                    "precision": seqeval.precision_score(true, found),
                    "recall": seqeval.recall_score(true, found),
                    "f1": seqeval.f1_score(true, found),
                }
                table = seqeval.classification_report(true, found, output_dict=True)
            want |= {
                f"f1_{name}": row["f1-score"] for name, row in table.items() if " avg" not in name
            }
            assert spans.score(true, found) == pytest.approx(want)


def test_no_spans_at_all_score_0_and_not_a_number_never():
    found = spans.score([["O", "O"]], [["O", "O"]])
    assert found == {"accuracy": 1, "precision": 0, "recall": 0, "f1": 0}


def span(start, end, label="PER"):
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(
    ("text", "found", "want"),
    [
        ("Ann Lee met Bob.", [span(0, 7), span(12, 15)], "B-PER I-PER O B-PER O"),
        # spaces at the ends belong to no word
        ("to Ann Lee .", [span(2, 11)], "O B-PER I-PER O"),
        ("Ann,Bob", [span(0, 3), span(4, 7)], "B-PER O B-PER"),
        ("我在北京x1", [span(2, 4, "LOC")], "O O B-LOC I-LOC O"),
        ("U.S. (3.5%)", [span(0, 4, "LOC")], "B-LOC I-LOC I-LOC I-LOC O O O O O O"),
        ("Ann Lee met Bob", [span(0, 5)], "span that cuts a word: 'Ann L' (PER) in 'Ann Lee'"),
        ("Ann Lee met Bob", [span(1, 3)], "span that cuts a word: 'nn' (PER) in 'Ann'"),
        ("Bob", [span(0, 3), span(2, 3)], "overlapping spans: 'Bob' (PER) and 'b' (PER); a word has one tag"),
        ("of China", [span(0, 8, "ORG"), span(3, 8)],
         "overlapping spans: 'of China' (ORG) and 'China' (PER); a word has one tag"),
        ("Ann  Bob", [span(3, 5)], "span of spaces only: '  ' (PER) at 3"),
    ],
)  # fmt: skip
def test_spans_become_tags_or_say_why_not(text, found, want):
    tags = sentences.to_tags(found, sentences.split(text))
    assert (str(tags) if isinstance(tags, BadRow) else " ".join(tags)) == want


def test_tags_to_predict_have_both_prefixes_of_every_type():
    assert spans.all_tags({"O", "B-B", "I-A"}) == ("O", "B-A", "I-A", "B-B", "I-B")
    assert spans.all_tags({"B-A", "S-A", "E-A"}) == ("O", "B-A", "I-A", "E-A", "S-A")
    assert spans.all_tags({"VERB", "NOUN", "O"}) == ("NOUN", "O", "VERB")


def test_a_word_without_a_token_goes_on_with_the_word_before():
    labels = ["O", "B-A", "I-A"]
    assert spans.with_continued([None, "B-A", None, None, "O", None], labels) == [
        "O", "B-A", "I-A", "I-A", "O", "O",
    ]  # fmt: skip
    assert spans.with_continued(["NOUN", None], ["NOUN", "VERB"]) == ["NOUN", "NOUN"]


def test_words_that_are_joined_have_their_places():
    sentence = sentences.joined(["Ann", "met", "B."], " ")
    assert [sentence.text[a:b] for a, b in sentence.words] == ["Ann", "met", "B."]
    sentence = sentences.joined(["北", "京"], "")
    assert sentence.text == "北京"
    assert sentence.words.tolist() == [[0, 1], [1, 2]]


def test_resampled_scores_are_the_scores_of_the_resampled_sentences():
    rng = np.random.default_rng(0)
    draw = lambda size: list(rng.choice(["O", "B-A", "I-A", "B-B"], size))
    sizes = [3, 7, 1, 5]
    true, predicted = [draw(n) for n in sizes], [draw(n) for n in sizes]
    draws = [rng.integers(4, size=4) for _ in range(6)]
    found = spans.resample(true, predicted, draws, with_spans=True)
    for i, drawn in enumerate(draws):
        want = spans.score([true[j] for j in drawn], [predicted[j] for j in drawn])
        for name, values in found.items():
            assert values[i] == pytest.approx(want[name]), name
    assert set(found) == {"accuracy", "precision", "recall", "f1"}
    assert set(spans.resample(true, predicted, draws, with_spans=False)) == {"accuracy"}
