"""The page with a map of texts: valid, self-contained, and with every text as it is."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxlm.report import latent_map

TEXTS = [
    "plain",
    "</script><script>alert(1)</script>",
    "\"double\" & 'single' <b onclick='x'>",
    "{{points}} {{title}} &amp; \\1",
    "中文 עברית 😀",
    "two\nlines",
]
VOID = {"meta", "circle", "line"}


class Page(html.parser.HTMLParser):
    """Elements by tag, and text by the tag that it is in; fails where tags do not match."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(page)
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
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


def make(labels=None, texts=TEXTS, title="Map <of> texts"):
    points = np.random.default_rng(0).normal(size=(len(texts), 2)) * [4, 1]
    return latent_map.page(title, texts, points, np.array([0.5, 0.25]), labels), points


def test_every_text_is_in_the_page_as_it_is():
    page = Page(make(labels=["<a>", "b"] * 3)[0])
    circles = page.all("circle")
    assert [c["data-text"] for c in circles] == TEXTS
    assert [c["data-label"] for c in circles] == ["<a>", "b"] * 3
    assert len(page.all("script")) == 1
    assert page.text("title") == page.text("h1") == ["Map <of> texts"]
    assert page.all("svg")[0]["aria-label"] == "Map <of> texts"


def test_the_page_needs_nothing_else():
    page, _ = make()
    assert not re.search(r"https?:|src=|url\(|@import|<link", page)
    assert "{{" not in page.replace("{{points}} {{title}}", "")


def test_places_have_one_scale_and_lie_within_the_axes():
    page, points = make()
    places = np.array([[float(c["cx"]), float(c["cy"])] for c in Page(page).all("circle")])
    scale = (places[1, 0] - places[0, 0]) / (points[1, 0] - points[0, 0])
    np.testing.assert_allclose(places - places[0], scale * (points - points[0]) * [1, -1], atol=0.2)
    assert (places > [56, 0]).all()
    assert (places < [960, 640 - 56]).all()
    # one of the two axes is used from end to end
    assert np.ptp(places, axis=0)[0] == pytest.approx(960 - 56 - 32, abs=0.2)


def test_axes_say_how_much_of_the_variance_they_have():
    words = Page(make()[0]).text("text")
    assert "component 1: 50.0% of the variance" in words
    assert "component 2: 25.0% of the variance" in words
    numbers = [float(word) for word in words if "component" not in word]
    assert len(numbers) >= 6


def test_frequent_classes_have_colours_and_the_rest_one_together():
    labels = [f"class {i}" for i in range(12) for _ in range(20 - i)]
    page = Page(make(labels, texts=["x"] * len(labels))[0])
    buttons = page.all("button")
    assert [b["class"] for b in buttons] == [f"c{i}" for i in range(9)]
    assert all(b["aria-pressed"] == "true" for b in buttons)
    assert page.text("button") == [
        *(f"class {i} ({20 - i})" for i in range(8)),
        f"other classes ({12 + 11 + 10 + 9})",
    ]
    classes = {c["data-label"]: c["class"] for c in page.all("circle")}
    assert classes == {f"class {i}": f"c{min(i, 8)}" for i in range(12)}


def test_without_classes_there_is_no_legend():
    page = Page(make()[0])
    assert page.all("button") == []
    assert {c["class"] for c in page.all("circle")} == {"c0"}
    assert not any("data-label" in c for c in page.all("circle"))


def test_equal_points_are_in_the_middle():
    page = latent_map.page("t", ["a", "b"], np.ones((2, 2)), np.zeros(2))
    assert {(c["cx"], c["cy"]) for c in Page(page).all("circle")} == {("508.0", "292.0")}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_script_is_valid(tmp_path):
    path = tmp_path / "script.js"
    path.write_text("".join(Page(make()[0]).text("script")))
    subprocess.run(["node", "--check", path], check=True)
