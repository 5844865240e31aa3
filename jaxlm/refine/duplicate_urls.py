"""URL deduplication: of all documents with one URL the first stays (RefinedWeb, 2306.01116, section 3.3)."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from jaxlm.refine.repeated import HashWriter, Repeats
from jaxlm.refine.rule import Drop, Rule
from jaxlm.refine.timing import Timer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateUrls:
    """Settings of URL deduplication.

    Args:
        memory: bytes that finding the repeats of one partition may take.
    """

    memory: int = 1 << 30


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


class HashUrls(PipelineStep):
    """Writes the hashes of the URLs of the documents that pass."""

    type = "refine"
    name = "hash URLs"

    def __init__(self, folder: pathlib.Path, bits: int) -> None:
        super().__init__()
        self.folder, self.bits = folder, bits

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # type: ignore[no-untyped-def]
        """Passes every document on."""
        writer = HashWriter(self.folder, rank, self.bits)
        timer = Timer(self.folder, "hash", rank)
        for document in data:
            with timer:
                writer.add(_hash(document))
            yield document
        with timer:
            writer.close()
        timer.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropDuplicateUrls(Rule):
    """Drops documents whose URL was there before."""

    name: ClassVar[str] = "duplicate_urls"
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
