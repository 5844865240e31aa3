"""The report of a run: self-contained, with every text as it is, and with the numbers that it is given."""

import html.parser
import json
import re

import numpy as np
import pytest

from jaxlm.report import page, svg
from jaxlm.report.page import Classes, Example, Report
from jaxlm.tasks import calibration

VOID = {"meta"}
NASTY = "</script><b onclick='x'>\"{{title}}\" & \\1 中文"


class Page(html.parser.HTMLParser):
    """Fails where tags do not match; collects texts and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.elements = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def report(**changes):
    confusion = np.array([[8, 2], [1, 9]])
    bins = calibration.reliability(np.array([0.9, 0.6, 0.55]), np.array([1, 0, 1]))
    history = [{"step": i, "loss": 2 / (i + 1), "learning_rate": 1e-3} for i in range(100)]
    history += [{"step": i, "eval/loss": 1.0, "eval/accuracy": 0.85} for i in (50, 99)]
    example = Example("a.jsonl:1", (("text", NASTY),), "pos", "neg", "97.0%", False)
    fields = dict(
        title=NASTY,
        subtitle="classification",
        metrics={"accuracy": 0.85, "loss": 0.31},
        main="accuracy",
        settings={"name": NASTY},
        intervals={"accuracy": (0.7, 0.95)},
        facts={"device": "cpu"},
        history=history,
        classes=Classes((NASTY, "pos"), confusion, bins),
        examples={"Confident mistakes": ("Wrong.", [example])},
        texts=[("text 1", 3.5, [(NASTY, 9.0), (" a", 0.1)])],
        lengths=np.array([3, 4, 4, 16]),
        longest=16,
    )
    return Report(**fields | changes)


def test_the_page_is_self_contained_and_every_text_is_in_it_as_it_is():
    text = page.page(report())
    found = Page(text)
    words = "".join(found.words)
    # the title and the heading, the scores of the class, the example, a token
    assert words.count(NASTY) == 5
    assert words.count(json.dumps(NASTY, ensure_ascii=False)[1:-1]) >= 1
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)|@import|url\(", text)
    assert "<script" not in text
    names = [attrs["href"] for tag, attrs in found.elements if tag == "a"]
    ids = {attrs["id"] for _, attrs in found.elements if "id" in attrs}
    assert {name.removeprefix("#") for name in names} <= ids
    # every chart says what it shows, every table cell belongs to a head
    charts = [attrs for tag, attrs in found.elements if tag == "svg"]
    assert len(charts) == 5
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    assert "0.8500" in words and "95%: 0.700 to 0.950" in words
    assert "1 fill all 16" not in words and "25.0% fill all 16" in words


def test_parts_that_do_not_fit_a_task_are_left_out():
    text = page.page(
        report(classes=None, examples={}, texts=(), lengths=None, history=(), intervals={})
    )
    assert re.findall(r'<section id="([\w-]+)"', text) == ["results", "run", "settings"]
    Page(text)


def test_many_classes_are_listed_by_their_confusions():
    confusion = np.diag(np.arange(1, 31)).astype(float)
    confusion[3, 5] = 7
    text = page.page(report(classes=Classes([f"c{i}" for i in range(30)], confusion)))
    assert "The most frequent confusions" in text and 'class="confusion"' not in text
    assert "<td>7</td><td>63.6%</td>" in text


def test_calibration_is_the_mean_gap_by_bins():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 1, 500)
    right = rng.uniform(size=500) < p**2
    total = 0.0
    for i in range(15):
        inside = (p > i / 15) & (p <= (i + 1) / 15)
        if inside.any():
            total += inside.sum() * abs(p[inside].mean() - right[inside].mean())
    bins = calibration.reliability(p, right)
    assert bins.error == pytest.approx(total / 500)
    assert calibration.reliability(np.array([1.0, 0.0]), np.array([1, 0])).error == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.31, 0.32), (0, 12345), (-3, 4e-9)])
def test_ticks_are_few_round_numbers_within(low, high):
    found = svg.ticks(low, high, 5)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 <= x <= high + 1e-9 for x in found)
