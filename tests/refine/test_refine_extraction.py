"""Text of pages, and pages that would bring a worker down."""

import os
import pickle

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.refine import extraction
from jaxlm.refine.extraction import Extraction

SENTENCE = "The committee decided that the old bridge should be repaired before winter comes. "
CHINESE = "委员会星期二开会，决定在冬天到来之前修好那座旧桥，并且请当地居民提出意见。"
PARAGRAPHS = [SENTENCE * 5, CHINESE * 5, "Read https://example.org/a?b=c. " + SENTENCE * 3]
ARTICLE = (
    "<html><head><title>Bridge</title></head><body><nav><a href='/'>Home</a> <a href='/x'>Imprint</a></nav>"
    "<article><h1>The bridge</h1>" + "".join(f"<p>{p}</p>" for p in PARAGRAPHS) + "</article>"
    "<footer>Copyright, all rights reserved, cookies</footer></body></html>"
)


def documents(*pages, **metadata):
    return [
        Document(text=page, id=str(i), metadata={"html": True} | metadata)
        for i, page in enumerate(pages)
    ]


@pytest.fixture
def rule_of():
    rules = []

    def make(**fields):
        rules.append(Extraction(**fields))
        return rules[-1]

    yield make
    for rule in rules:
        rule.close()


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_the_article_is_extracted(rule_of, extractor):
    pytest.importorskip(extractor)
    (document,) = documents(ARTICLE, url="http://x.org")
    assert rule_of(extractor=extractor).check(document) is None
    assert document.text.count(SENTENCE.strip()) == 8 and document.text.count(CHINESE) == 5
    assert "https" not in document.text and "Copyright" not in document.text
    assert document.metadata == {"url": "http://x.org"}


# pages that have brought down parsers; with a limit so that the test ends
HOSTILE = {
    "empty": "",
    "blank": " \n" * 1000,
    "nested": "<div>" * 100_000 + ARTICLE,
    "nested tables": "<table><tr><td>" * 20_000 + ARTICLE,
    "nested inline": "<b><i>" * 50_000,
    "attributes": "<a " + "a=1 " * 200_000 + ">",
    "less than": "<" * 500_000,
    "ampersands": "&" * 500_000,
    "comments": "<!--" * 100_000,
    "scripts": "<script>" * 100_000,
    "no page": "\x01\x02\ufffe" * 1000,
}


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_no_page_brings_the_worker_down(rule_of, extractor):
    pytest.importorskip(extractor)
    rule = rule_of(extractor=extractor, time_limit=2.0)
    for name, page in HOSTILE.items():
        before, document, after = documents(ARTICLE, page, ARTICLE)
        drops = rule.check_batch([before, document, after])
        # the pages beside it are extracted whatever happens
        assert drops[0] is None and drops[2] is None, name
        assert before.text == after.text and SENTENCE.strip() in before.text, name
        if drops[1] is not None:
            assert drops[1].rule in ("empty", "time_limit", "extractor_died", "extractor_error")
        if name in ("empty", "blank"):
            assert (drops[1].rule, drops[1].value, drops[1].threshold) == ("empty", 0, 1)


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_characters_that_no_parser_reads(rule_of, extractor):
    pytest.importorskip(extractor)
    page = ARTICLE.replace("old bridge", "old\x00 \ud800bridge")
    declared = "<?xml version='1.0' encoding='utf-16'?>" + ARTICLE
    for document in documents(page, declared):
        assert rule_of(extractor=extractor).check(document) is None
        assert "committee decided" in document.text


BEHAVE = "extractors_for_tests:behave"


@pytest.fixture
def behaving(rule_of, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    return lambda **fields: rule_of(**{"extractor": BEHAVE, "time_limit": 0.3} | fields)


def test_every_way_to_fail_is_told(behaving, monkeypatch, capfd):
    # a page that spins must reach the limit of its own time first, on a busy machine too
    monkeypatch.setattr(extraction, "_WALL", 10)
    pages = ["a", "raise", "b", "exit", "c", "crash", "spin", "d", "sleep", "nothing", "e"]
    made = documents(*pages)
    drops = behaving().check_batch(made)
    told = {page: (d.rule, d.value, d.threshold) for page, d in zip(pages, drops) if d is not None}
    assert told == {
        "raise": ("extractor_error", "KeyError: 'no such tag'", "none"),
        "exit": ("extractor_died", "exit code 3", "none"),
        "crash": ("extractor_died", "SIGSEGV", "none"),
        "spin": ("time_limit", "over 0.3", 0.3),
        "sleep": ("time_limit", "no answer in 3", 0.3),
        "nothing": ("empty", 0, 1),
    }
    kept = [d for d, drop in zip(made, drops) if drop is None]
    assert [d.text.split(" by ")[0] for d in kept] == [f"text of {p}" for p in "abcde"]
    assert all("html" not in d.metadata for d in kept)
    # what an extractor prints is nobody's output
    assert capfd.readouterr() == ("", "")


def test_memory_is_limited(behaving):
    rule = behaving(max_memory=1 << 30)
    (drop,) = rule.check_batch(documents("eat"))
    assert (drop.rule, drop.value) == ("extractor_error", "MemoryError: ")
    assert rule.check_batch(documents("a")) == [None]


def test_one_process_serves_many_batches_and_ends_with_the_rule(behaving, monkeypatch):
    rule = behaving()
    first, second = documents("a", "b")
    rule.check(first)
    rule.check_batch([second])
    pid = rule._child.process.pid
    assert first.text.endswith(f"by {pid}") and second.text.endswith(f"by {pid}")
    monkeypatch.setattr(extraction, "_PAGES", 2)
    (third,) = documents("c")
    rule.check(third)
    assert third.text != "c" and not third.text.endswith(f"by {pid}")
    # the system ends it between batches
    rule._child.process.kill()
    rule._child.process.wait()
    assert rule.check_batch(documents("d")) == [None]
    process = rule._child.process
    rule.close()
    assert process.poll() is not None


def test_large_batches_are_sent_in_parts(behaving, monkeypatch):
    monkeypatch.setattr(extraction, "_SENT", 10)
    made = documents(*[f"page {i}" for i in range(7)], "x" * 100)
    assert behaving().check_batch(made) == [None] * 8
    assert [d.text.split(" by ")[0][-6:] for d in made[:7]] == [f"page {i}" for i in range(7)]


def test_a_page_that_is_too_large_is_not_parsed(behaving):
    rule = behaving(max_bytes=300)
    drops = rule.check_batch(documents("x" * 301, "好" * 101, "好" * 100, "x" * 300))
    assert [(d.rule, d.value, d.threshold) for d in drops[:2]] == [
        ("too_large", 301, 300),
        ("too_large", 303, 300),
    ]
    assert drops[2:] == [None, None]


def test_documents_that_are_no_pages_stay_as_they_are(behaving):
    text, marked = (
        "<p>text</p>\n\n\n\nhttp://x.y",
        Document(text="<p>", id="1", metadata={"html": False}),
    )
    plain = Document(text=text, id="0", metadata={})
    assert behaving().check_batch([plain, marked]) == [None, None]
    assert plain.text == text and marked.text == "<p>"


def test_a_rule_is_pickled_without_its_process(behaving):
    rule = behaving()
    rule.check(documents("a")[0])
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule and "_child" not in copy.__dict__


CLEANED = {
    "a\n\n\n\nb\n \n\t\nc\nd": "a\n\nb\n\nc\nd",
    "see https://x.org/a_(b)?q=1#z, or www.x.org.": "see, or.",
    "(ftp://x.org/file)": "()",
    "见https://x.org/路。好的": "见路。好的",
    "“http://x.org”": "“”",
    "a\nhttps://x.org\n\nb": "a\n\nb",
    "no url: http:/x, wwwx.org, xhttp://": "no url: http:/x, wwwx.org, xhttp://",
    " \n ": "",
}


def test_newlines_and_urls():
    for text, cleaned in CLEANED.items():
        assert Extraction().clean(text) == cleaned
    kept = Extraction(remove_urls=False, max_newlines=1)
    assert kept.clean("a\n\nhttp://x.org\n") == "a\nhttp://x.org"
    for text in (
        "http://" * 300_000,
        "\n " * 1_000_000,
        " " * 1_000_000,
        "www." * 300_000,
        "\n" + " " * 1_000_000,
    ):
        Extraction().clean(text)


def test_mistakes_are_named(rule_of, tmp_path, monkeypatch):
    for fields, message in [
        (
            dict(extractor="justext"),
            "'justext' is not one of trafilatura, resiliparse, nor module:function",
        ),
        (dict(time_limit=0), "time_limit=0 must be positive"),
        (dict(max_newlines=0), "max_newlines=0 must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            Extraction(**fields)
    with pytest.raises(ValueError, match="'nowhere:text' cannot be loaded: ModuleNotFoundError"):
        rule_of(extractor="nowhere:text").check(documents("a")[0])
    with pytest.raises(ValueError, match="'os:nowhere' cannot be loaded: AttributeError"):
        rule_of(extractor="os:nowhere").check(documents("a")[0])
    (tmp_path / "exits_when_imported.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match=r"did not start \(exit code 3\)"):
        rule_of(extractor="exits_when_imported:text").check(documents("a")[0])
