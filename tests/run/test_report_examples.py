"""How the report shows an example: what was expected, what was predicted, and how wrong it is."""

import types

from jaxlm.data.columns import Column
from jaxlm.run import report


def example(kind, answer, prediction, **values):
    """(goodness, example) of a prediction for a column of a kind."""
    columns = {
        "text": Column("text", "text"),
        "target": Column("target", kind, over=values.pop("over", None)),
    }
    task = type("Task", (), {"columns": classmethod(lambda *_: columns)})()
    run = types.SimpleNamespace(task=task, config=None)
    record = {"id": "a/b.jsonl:3", "text": "Ann met Bob.", "target": answer, **values}
    return report._example(run, "target", columns["target"], record, prediction)[:2]


def test_spans_are_shown_by_their_text_and_compared_without_spaces_at_their_ends():
    ann, bob = {"start": 0, "end": 4, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"}
    found = {"spans": [{**bob, "probability": 0.5}, {**ann, "end": 3}], "tags": []}
    goodness, shown = example("spans", [ann, bob], found, over="text")
    assert (goodness, shown.right, shown.where) == (0, True, "b.jsonl:3")
    assert shown.answer == "Ann (PER), Bob (PER)"
    goodness, shown = example(
        "spans", [ann], {"spans": [{**ann, "label": "LOC"}], "tags": []}, over="text"
    )
    assert (goodness, shown.right) == (-2, False)
    assert (shown.answer, shown.prediction) == ("Ann (PER)", "Ann (LOC)")
    assert example("spans", [], {"spans": [], "tags": []}, over="text")[1].prediction == "none"


def test_pairs_are_shown_by_their_cosine_and_not_by_their_vectors():
    found = {"vector": [0.1] * 8, "pair_vector": [0.2] * 8, "similarity": 0.25}
    goodness, shown = example("text", "a pair", found)
    assert (goodness, shown.answer, shown.prediction) == (0.25, "a pair", "cosine 0.250")
    # a pair with a score may be far apart
    assert example("text", "a pair", found, score=0.1)[0] == 0
