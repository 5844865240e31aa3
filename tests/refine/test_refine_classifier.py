"""Models fine-tuned with jaxlm as filters."""

import pathlib
import pickle

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

import jaxlm
from jaxlm.refine.classifier import Classifier
from jaxlm.run import load

# a run of classification by an older jaxlm, see golden/make_version_1.py
RUN = pathlib.Path(__file__).parents[1] / "golden" / "version_1" / "head"
TEXTS = [
    "a good film number 3 about tea",
    "a bad film number 3 about war",
    "good good",
    "bad bad bad",
]


def documents(*texts):
    return [Document(text=text, id=str(i), metadata={}) for i, text in enumerate(texts)]


def test_documents_are_kept_by_the_probability_of_a_class():
    expected = [p["probabilities"] for p in jaxlm.load(RUN).predict(TEXTS)]
    label = sorted(expected[0])[0]
    scores = [round(p[label], 4) for p in expected]
    threshold = sorted(scores)[2]
    rule = Classifier(model=str(RUN), label=label, threshold=threshold)
    made = documents(*TEXTS)
    drops = rule.check_batch([*made, *documents("", " \n")])
    assert [d.metadata["quality_score"] for d in made] == scores
    for score, drop in zip(scores, drops):
        assert (drop is None) == (score >= threshold)
        if drop is not None:
            assert (drop.rule, drop.value, drop.threshold) == ("low_score", score, threshold)
    assert [drop.rule for drop in drops[4:]] == ["empty", "empty"]
    (alone,) = documents(TEXTS[1])
    assert rule.check(alone) == drops[1] and alone.metadata == made[1].metadata
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule and "_predict" not in copy.__dict__


def test_hostile_texts_have_a_score():
    rule = Classifier(model=str(RUN), label=_label(), threshold=0.0)
    texts = ("\ud800", "\x00a", "x" * 1_000_000, "好", "\n" * 1000 + "a", "\x1b\ufffe\u202e")
    assert rule.check_batch(documents(*texts)) == [None] * len(texts)
    assert rule.check(documents("\x00 \x00")[0]).rule == "empty"


def _label():
    return sorted(jaxlm.load(RUN).predict("a")["probabilities"])[0]


class Regression:
    """What `jaxlm.load` gives for a run of regression."""

    def predict(self, texts):
        return [{"value": float(len(text))} for text in texts]


def test_the_value_of_a_regression_is_the_score(monkeypatch):
    monkeypatch.setattr(load, "load", lambda path: Regression())
    made = documents("x", "xxx", "xxxx")
    rule = Classifier(model="run", threshold=3)
    assert [drop is None for drop in rule.check_batch(made)] == [False, True, True]
    assert [d.metadata["quality_score"] for d in made] == [1.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="a regression has no class 'good'"):
        Classifier(model="run", label="good", threshold=3).check(made[0])


def test_mistakes_are_named(tmp_path):
    for label in (None, "nothing"):
        with pytest.raises(ValueError, match=f"set label to one of .*, not {label!r}"):
            Classifier(model=str(RUN), label=label, threshold=0.5).check(documents("a")[0])
    with pytest.raises(ValueError, match="nowhere"):
        Classifier(model=str(tmp_path / "nowhere"), threshold=0.5).check(documents("a")[0])
    decoder = RUN.parent / "unclipped"
    with pytest.raises(ValueError, match=r"no task that predicts|neither"):
        Classifier(model=str(decoder), threshold=0.5).check(documents("a")[0])
