"""The URL stage decides as datatrove's filter, from a file of hashes that all workers share."""

import concurrent.futures
import itertools
import multiprocessing
import pickle
import random
import re

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document
from datatrove.pipeline.filters.url_filter import URLFilter

from jaxlm.refine import hashed_set
from jaxlm.refine.urls import CURATED, Urls

DOMAINS = (
    "bad.com",
    "evil.co.uk",
    "sub.half.org",
    "xn--mnchen-3ya.de",
    "地址.中国",
    "deep.a.b.net",
)
PAGES = ("https://fine.org/one", "http://fine.org/two?x=1#y")
STRICT = ("hot pocket", "nastyword")
HARD = ("porn", "xrated")
SOFT = ("ass", "babes", "tits")
IPV4 = re.compile(r"[\d.]+")
# datatrove's names of its reasons
REASONS = {
    "domain": "domain",
    "subdomain": "subdomain",
    "url": "url",
    "hard_blacklisted": "hard_word",
    "soft_blacklisted": "soft_words",
    "blacklisted_subword": "strict_word",
}
ODD = (
    *("not a url", "http://", "://", "http://..com", "http://[::1]/", "http://[bad", "//bad.com/x", "BAD.COM"),
    *("http://8.8.8.8:80/porn", "http://user:pw@bad.com:8080/x", "http://user@bad.com@fine.org/", "mailto:a@bad.com"),
    *("http://bad.com./", "http://münchen.de/", "http://xn--mnchen-3ya.de/", "http://地址.中国/路", "http://BAD.com/"),
    *("http://a.com/\x00", "\ud800http://bad.com/", "http://ba\ud800d.com/", "http://a.com/%F0%9F\n", " ", "http://x"),
    *("http://hot-pocket.com/", "http://x.com/hotpocket", "http://x.com/ass/babes"),
    *("http://x.com/ass-ass", "ass babes"),
)  # fmt: skip


def document(url):
    return Document(text="text", id="0", metadata={} if url is None else {"url": url})


def made_up_urls(count, seed=0):
    rng = random.Random(seed)
    hosts = [
        *DOMAINS,
        "half.org",
        "a.b.net",
        "b.net",
        "fine.org",
        "news.example.co.jp",
        "blogspot.com",
        "10.0.0.1",
    ]
    words = [
        *HARD,
        *SOFT,
        "Porn",
        "class",
        "assets",
        "news",
        "hot",
        "pocket",
        "nastyword",
        "index.html",
        "新闻",
    ]
    for _ in range(count):
        host = rng.choice(["", "www.", "sub.", "a.b.", "user@", "u:p@m."]) + rng.choice(hosts)
        path = "".join(rng.choice("/-_.?&=%") + rng.choice(words) for _ in range(rng.randrange(5)))
        yield (
            rng.choice(["http://", "https://", "", "ftp://"])
            + host
            + rng.choice(["", ":80"])
            + path
        )
    yield from PAGES
    yield from ODD


@pytest.fixture
def lists(tmp_path):
    fields = {
        "domains": DOMAINS,
        "urls": PAGES,
        "strict_words": STRICT,
        "hard_words": HARD,
        "soft_words": SOFT,
    }
    for name, lines in fields.items():
        (tmp_path / name).write_text("# comment\n" + "\n".join(lines) + "\n\n", encoding="utf-8")
    return {name: (str(tmp_path / name),) for name in fields} | {"cache": str(tmp_path / "cache")}


def offline(reference):
    from tldextract import TLDExtract

    reference.tldextractor = TLDExtract(suffix_list_urls=(), cache_dir=None)
    return reference


def decision(reference, url):
    verdict = reference.filter(document(url))
    return None if verdict is True else REASONS[verdict[1]]


@pytest.mark.filterwarnings("ignore:The 'registered_domain' property:DeprecationWarning")
def test_decisions_are_datatroves(lists):
    reference = offline(
        URLFilter(
            extra_domains=DOMAINS,
            extra_urls=PAGES,
            banned_words=HARD,
            banned_subwords=STRICT,
            soft_banned_words=SOFT,
            use_integrated_lists=False,
        )
    )
    rule = Urls(**lists)
    seen = set()
    for url in made_up_urls(3000):
        drop = rule.check(document(url))
        reason = None if drop is None else drop.rule
        assert reason == decision(reference, url), url
        seen.add(reason)
    assert seen == {None, *REASONS.values()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'registered_domain' property:DeprecationWarning")
def test_decisions_are_datatroves_with_the_bundled_lists(tmp_path, monkeypatch):
    # it unpacks 124 MB
    unpacked = "datatrove.pipeline.filters.url_filter.cached_assets_path"
    monkeypatch.setattr(unpacked, lambda **_: str(tmp_path))
    reference = offline(URLFilter())
    rule = Urls(cache=str(tmp_path))
    reference.download_data()
    assert len(rule._domains) == len(reference.block_listed_domains)
    rng = random.Random(1)
    listed = sorted(itertools.islice(reference.block_listed_domains, 20_000))
    urls = [f"http://{rng.choice(['', 'www.', 'a.'])}{domain}/x" for domain in listed]
    urls += rng.sample(sorted(reference.block_listed_url), 5_000)
    urls += [f"https://{domain[1:]}/{domain.replace('.', '/')}" for domain in listed]
    urls += list(made_up_urls(5_000))
    for url in urls:
        drop = rule.check(document(url))
        if drop is not None and drop.rule == "subdomain" and IPV4.fullmatch(str(drop.value)):
            # datatrove has addresses on its list, but does not find them
            assert drop.value in reference.block_listed_domains
            continue
        assert (None if drop is None else drop.rule) == decision(reference, url), url


def test_the_network_is_never_asked(lists, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a request")

    monkeypatch.setattr("requests.Session.request", refuse)
    assert Urls(**lists).check(document("http://www.bad.com/")).value == "bad.com"


def test_a_removal_names_what_was_found(lists):
    rule = Urls(**lists)
    drop = rule.check(document("http://a.com/ass-babes"))
    assert (drop.rule, drop.value, drop.threshold) == ("soft_words", "ass babes", 1)
    assert rule.check(document("http://www.bad.com/")).value == "bad.com"
    assert rule.check(document("http://x.com/xhotpocketx")).value == "hotpocket"


def test_documents_without_a_url_are_kept(lists):
    rule = Urls(**lists)
    assert [rule.check(document(url)) for url in (None, "", 7)] == [None] * 3


def test_curated_sources_are_dropped_only_if_asked_for(lists):
    urls = {
        "https://en.wikipedia.org/wiki/Cat": "wikipedia.org",
        "https://wikipedia.org": "wikipedia.org",
        "https://irclogs.ubuntu.com/x": "irclogs.ubuntu.com",
        "https://ubuntu.com/": None,
        "https://notwikipedia.org/": None,
    }
    rule, plain = Urls(**lists, sources=CURATED), Urls(**lists)
    for url, source in urls.items():
        drop = rule.check(document(url))
        assert (None if drop is None else drop.value) == source, url
        assert plain.check(document(url)) is None


def test_long_urls_take_no_time(lists):
    rule = Urls(**lists, sources=CURATED)
    for url in (
        "a/" * 50_000,
        "http://" + "a." * 50_000 + "com",
        "http://" + "a" * 100_000 + ".com",
    ):
        assert rule.check(document(url)) is None


def build_and_ask(lists):
    rule = Urls(**lists)
    return rule.check(document("http://bad.com")) is not None, len(rule._domains)


def test_workers_that_start_together_build_the_cache_once(lists, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        assert list(pool.map(build_and_ask, [lists] * 2)) == [(True, len(DOMAINS))] * 2
    # nothing temporary is left
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".u64"]


def test_another_content_is_another_cache(lists, tmp_path):
    assert Urls(**lists).check(document("http://new.com")) is None
    with open(lists["domains"][0], "a") as file:
        file.write("new.com\n")
    assert Urls(**lists).check(document("http://new.com")).rule == "domain"


def test_the_cache_moves_with_the_variable(lists, tmp_path, monkeypatch):
    monkeypatch.setenv(hashed_set.CACHE_VARIABLE, str(tmp_path / "moved"))
    Urls(**lists | {"cache": None}).check(document("http://bad.com"))
    assert any((tmp_path / "moved").glob("domains-*.u64"))


def test_a_rule_is_pickled_without_its_lists(lists):
    rule = Urls(**lists)
    rule.check(document("http://bad.com"))
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule and set(copy.__dict__) == set(Urls.__dataclass_fields__) - {
        "name",
        "source",
    }
    assert copy.check(document("http://bad.com")).rule == "domain"


def test_empty_lists_block_nothing(tmp_path):
    none = dict.fromkeys(("domains", "urls", "strict_words", "hard_words", "soft_words"), ())
    rule = Urls(**none, cache=str(tmp_path))
    assert rule.check(document("http://bad.com/porn")) is None


def test_mistakes_are_named(lists, tmp_path):
    with pytest.raises(ValueError, match="domains='x' must be a tuple"):
        Urls(domains="x")
    with pytest.raises(ValueError, match="nowhere: cannot be read"):
        Urls(**lists | {"domains": (str(tmp_path / "nowhere"),)}).check(document("http://a.com"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="JAXLM_CACHE"):
        Urls(**lists | {"cache": str(tmp_path / "file")}).check(document("http://a.com"))


def test_a_listed_address_is_found(tmp_path):
    listed = tmp_path / "domains"
    listed.write_text("27.222.152.22\nbad.com\n")
    rule = Urls(
        domains=(str(listed),),
        urls=(),
        strict_words=(),
        hard_words=(),
        soft_words=(),
        cache=str(tmp_path),
    )
    for url, value in [
        ("https://27.222.152.22/pages/18.html", "27.222.152.22"),
        ("http://27.222.152.22:8080/", "27.222.152.22"),
        ("http://27.222.152.23/", None),
        ("http://1.bad.com/", "bad.com"),
    ]:
        drop = rule.check(document(url))
        assert (None if drop is None else drop.value) == value
