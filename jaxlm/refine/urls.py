"""Documents dropped by their URL: listed domains and URLs, words in the URL, and sources that are curated elsewhere."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from datatrove.data import Document
from datatrove.utils._import_utils import ASSETS_PATH

from jaxlm.refine import hashed_set
from jaxlm.refine.hashed_set import HashedSet
from jaxlm.refine.rule import Drop, Rule

# instead of a path: the list inside datatrove, 4.56 million domains and 19,587 URLs
BUNDLED = "bundled"
_BUNDLED_LISTS = "url_filterblacklistsv0_3_0.tar.gz"
_BUNDLED_WORDS = {
    "strict_words": "banned_subwords.txt",
    "hard_words": "banned_words.txt",
    "soft_words": "soft_banned_words.txt",
}
# for the field `sources`: what people mix in from curated corpora, as in RefinedWeb, appendix G.1 (the Pile's sources)
CURATED = (
    "arxiv.org",
    "askubuntu.com",
    "courtlistener.com",
    "exporter.nih.gov",
    "github.com",
    "irclogs.ubuntu.com",
    "mathoverflow.net",
    "ncbi.nlm.nih.gov",
    "news.ycombinator.com",
    "reddit.com",
    "serverfault.com",
    "stackapps.com",
    "stackexchange.com",
    "stackoverflow.com",
    "statmt.org",
    "superuser.com",
    "uspto.gov",
    "wikipedia.org",
)
_NO_ALPHANUMERIC = re.compile(r"[^a-zA-Z0-9]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Urls(Rule):
    """Decides by metadata "url" as datatrove's URLFilter does, and finds listed addresses too; no URL: kept.

    Lists are files with a member a line; lines that begin with # are comments. "bundled" is datatrove's own list, so
    `("bundled", "mine.txt")` adds to it and `("mine.txt",)` replaces it.
    """

    name: ClassVar[str] = "urls"
    source: ClassVar[str] = (
        "RefinedWeb (2306.01116), section 3.1 and appendix G.1; datatrove URLFilter"
    )

    # of host names: the registered domain or the whole host of a URL is listed
    domains: tuple[str, ...] = (BUNDLED,)
    # the whole URL is listed
    urls: tuple[str, ...] = (BUNDLED,)
    # strings that may not occur anywhere in the letters and digits of a URL, in either case
    strict_words: tuple[str, ...] = (BUNDLED,)
    # words between other characters, one of which is enough; URLs are not lowercased, as in datatrove
    hard_words: tuple[str, ...] = (BUNDLED,)
    # words of which `max_soft_words` may occur
    soft_words: tuple[str, ...] = (BUNDLED,)
    max_soft_words: int = 1
    # domains that are left out with all their hosts, such as CURATED
    sources: tuple[str, ...] = ()
    # folder for the hashed lists; None: see `hashed_set.cache_folder`
    cache: str | None = None

    def __post_init__(self):
        for field in ("domains", "urls", "sources", *_BUNDLED_WORDS):
            if isinstance(getattr(self, field), str):
                raise ValueError(f"{field}={getattr(self, field)!r} must be a tuple of strings")
        if self.max_soft_words < 0:
            raise ValueError(f"max_soft_words={self.max_soft_words} must not be negative")

    def check(self, document: Document) -> Drop | None:
        url = document.metadata.get("url")
        if not url or not isinstance(url, str):
            return None
        domain, host = self._hosts(url)
        for field, value in (("domain", domain), ("subdomain", host)):
            if value in self._domains:
                return Drop(field, value, "not listed")
        if url in self._urls:
            return Drop("url", url[:300], "not listed")
        words = set(_NO_ALPHANUMERIC.split(url))
        if hard := words & self._hard:
            return Drop("hard_word", min(hard), "none")
        if len(soft := words & self._soft) > self.max_soft_words:
            return Drop("soft_words", " ".join(sorted(soft)), self.max_soft_words)
        if self._strict is not None:
            found = next(self._strict.iter(_letters(url)), None)
            if found is not None:
                return Drop("strict_word", found[1], "none")
        if (curated := f".{host}").endswith(self._sources):
            found = next(source for source in self._sources if curated.endswith(source))
            return Drop("curated_source", found[1:], "not in sources")
        return None

    def _hosts(self, url: str) -> tuple[str, str]:
        """The registered domain and the whole host of a URL; "" if it has no public suffix.

        An address is a host: the list has some, which datatrove never finds there.
        """
        parts = self._extractor(url)
        if not (parts.suffix and parts.domain):
            return "", parts.ipv4
        domain = f"{parts.domain}.{parts.suffix}"
        return domain, f"{parts.subdomain}.{domain}" if parts.subdomain else domain

    @functools.cached_property
    def _extractor(self) -> Any:
        from tldextract import TLDExtract

        # no addresses and no cache: the list inside the package, without the network
        return TLDExtract(suffix_list_urls=(), cache_dir=None)

    @functools.cached_property
    def _domains(self) -> HashedSet:
        return self._hashed("domains", self.domains)

    @functools.cached_property
    def _urls(self) -> HashedSet:
        return self._hashed("urls", self.urls)

    @functools.cached_property
    def _sources(self) -> tuple[str, ...]:
        return tuple(f".{source}" for source in self.sources)

    def _hashed(self, kind: str, lists: tuple[str, ...]) -> HashedSet:
        archive = pathlib.Path(ASSETS_PATH) / _BUNDLED_LISTS
        paths = [archive if path == BUNDLED else pathlib.Path(path) for path in lists]
        folder = hashed_set.cache_folder(self.cache)

        def lines(path: pathlib.Path) -> Iterable[str]:
            return _bundled_lines(archive, kind) if path == archive else _lines(path)

        return hashed_set.build(kind, paths, lines, folder)

    @functools.cached_property
    def _hard(self) -> frozenset[str]:
        return self._words("hard_words")

    @functools.cached_property
    def _soft(self) -> frozenset[str]:
        return self._words("soft_words")

    @functools.cached_property
    def _strict(self) -> Any:
        """An automaton over all strict words; None without words."""
        import ahocorasick

        automaton = ahocorasick.Automaton()
        for word in self._words("strict_words"):
            automaton.add_word(word, word)
        automaton.make_automaton()
        return automaton if len(automaton) else None

    def _words(self, field: str) -> frozenset[str]:
        bundled = pathlib.Path(ASSETS_PATH) / _BUNDLED_WORDS[field]
        paths = [
            bundled if path == BUNDLED else pathlib.Path(path) for path in getattr(self, field)
        ]
        return frozenset(
            word for path in paths for line in _lines(path) if (word := _letters(line))
        )


def _letters(text: str) -> str:
    """The ASCII letters and digits of a text, in lower case."""
    return _NO_ALPHANUMERIC.sub("", text).lower()


def _members(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if not line.startswith("#") and not line.isspace())


def _lines(path: pathlib.Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        yield from _members(file)


def _bundled_lines(archive: pathlib.Path, name: str) -> Iterator[str]:
    with tarfile.open(archive, "r:gz") as tar:
        file = tar.extractfile(name)
        assert file is not None
        yield from _members(line.decode("utf-8") for line in file)
