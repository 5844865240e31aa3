"""URL deduplication: of all documents with one URL the first stays (RefinedWeb, 2306.01116, section 3.3)."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
import xxhash
from datatrove.data import Document

from jaxlm.refine.repeated import HashDocuments, Repeats
from jaxlm.refine.rule import Drop, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateUrls:
    """Settings of URL deduplication.

    Args:
        memory: bytes that finding the repeats of one partition may take.
    """

    name: ClassVar[str] = "duplicate_urls"

    memory: int = 1 << 30

    def hash(self, folder: pathlib.Path, bits: int) -> HashDocuments:
        """The step that writes the hashes of the URLs of the documents that pass."""
        return HashDocuments(folder, bits, _hash)


def same_url(url: str) -> str:
    """A URL without what does not change the page: scheme, "www.", port, fragment, and a slash at the end."""
    try:
        parts = urlsplit(url.strip())
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return url.strip()
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{parts.path.rstrip('/')}{query}"


def _hash(document: Document) -> np.ndarray:
    """[1], or [0] for a document without URL."""
    url = document.metadata.get("url")
    keys = [xxhash.xxh3_64_intdigest(same_url(url).encode("utf-8", "replace"))] if url else []
    return np.array(keys, np.uint64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropDuplicateUrls(Rule):
    """Drops documents whose URL was there before."""

    name: ClassVar[str] = DuplicateUrls.name
    source: ClassVar[str] = "RefinedWeb, section 3.3"

    folder: pathlib.Path
    bits: int
    repeats: Repeats | None = None

    def for_task(self, task: int) -> DropDuplicateUrls:
        """With the marks of the task's URLs."""
        return dataclasses.replace(self, repeats=Repeats(self.folder, task, self.bits))

    def check(self, document: Document) -> Drop | None:
        """Documents come in the order in which they were hashed."""
        assert self.repeats is not None
        if self.repeats.take(_hash(document)).any():
            return Drop("seen_before", document.metadata["url"], "first document of the URL")
        return None
