"""Fuzzy deduplication by MinHash: datatrove's four stages, with faster shingles and signatures.

Documents whose sets of word 5-grams have Jaccard similarity s are found with probability 1 - (1 - s^r)^b, for b
buckets of r hashes (Broder 1997; RefinedWeb, 2306.01116, appendix G.3.1: b = 450, r = 20; FineWeb, 2406.17557: 14, 8).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
from typing import ClassVar

import numpy as np
from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.text import simplify_text

from jaxlm.refine.analysis import analyse
from jaxlm.refine.hashing import window_hashes
from jaxlm.refine.rule import Drop, Rule
from jaxlm.refine.timing import Timer

_PRIME_BITS = np.uint64(61)
_PRIME = np.uint64((1 << 61) - 1)
# hashes whose products with the shingles are in memory together
_HASHES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Settings of fuzzy deduplication.

    Args:
        buckets: number of buckets; documents that agree in one of them are duplicates.
        hashes: hashes in a bucket, all of which must agree.
        ngram: words in a shingle.
        seed: of the hash functions.
    """

    name: ClassVar[str] = "near_duplicates"

    buckets: int = 14
    hashes: int = 8
    ngram: int = 5
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("buckets", "hashes", "ngram"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def similarity(self) -> float:
        """Similarity at which the probability of being found rises steepest, (1/b)^(1/r)."""
        return (1 / self.buckets) ** (1 / self.hashes)

    def probability(self, similarity: float) -> float:
        """Probability that two documents of this similarity are found."""
        return 1 - (1 - similarity**self.hashes) ** self.buckets

    def config(self) -> MinhashConfig:
        """For datatrove."""
        return MinhashConfig(
            n_grams=self.ngram,
            num_buckets=self.buckets,
            hashes_per_bucket=self.hashes,
            seed=self.seed,
        )

    def sign(self, folder: pathlib.Path) -> PipelineStep:
        """The step that writes the signatures of the documents that it is given."""
        return Sign(folder, self.config())

    def match(self, folder: pathlib.Path) -> PipelineStep:
        """The step that finds pairs; as many tasks as buckets."""
        return Match(folder, self.config())

    def cluster(self, folder: pathlib.Path) -> PipelineStep:
        """The step that joins pairs to clusters; one task."""
        return Cluster(folder, self.config())


class Sign(MinhashDedupSignature):
    """datatrove's signatures with our words, whose hashes are made for a document at once.

    spaCy, which datatrove uses for English, takes most of its time (docs/refining.md has the figures).
    """

    def __init__(self, folder: pathlib.Path, config: MinhashConfig) -> None:
        # not that of MinhashDedupSignature, which loads spaCy
        PipelineStep.__init__(self)
        self.folder = folder
        self.output_folder = get_datafolder(str(folder / "signatures"))
        self.config = config
        self.num_hashes = config.num_buckets * config.hashes_per_bucket
        self._parameters = None
        self.skip_existing_sigs = False
        self._timer: Timer | None = None

    def run(self, data, rank: int = 0, world_size: int = 1) -> None:  # type: ignore[no-untyped-def]
        """Takes all documents and passes none on."""
        self._timer = Timer(self.folder, "sign", rank)
        super().run(data, rank, world_size)
        self._timer.close()

    def get_shingles(self, text: str) -> np.ndarray:
        """[N, 1] 64-bit hashes of the n-grams of words; each once, because the minimum is the same."""
        with self._timer or contextlib.nullcontext():
            simple = simplify_text(text, self.config.norm_config)
            hashes = window_hashes(analyse(simple).hashes, self.config.n_grams)
            return np.unique(hashes).reshape(-1, 1)

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """What datatrove computes, a few hashes at a time and without division."""
        with self._timer or contextlib.nullcontext():
            a, b = (parameter.reshape(-1, 1) for parameter in self.parameters)
            x = shingles.reshape(1, -1)
            minima = np.empty(self.num_hashes, np.uint64)
            # in two arrays that stay in the processor's cache
            block, other = np.empty((2, _HASHES, x.size), np.uint64)
            for i in range(0, self.num_hashes, _HASHES):
                count = min(_HASHES, self.num_hashes - i)
                y, z = block[:count], other[:count]
                # as datatrove does: modulo 2^64 first, then modulo the prime 2^61 - 1, which needs no division
                np.multiply(a[i : i + count], x, out=y)
                np.add(y, b[i : i + count], out=y)
                np.right_shift(y, _PRIME_BITS, out=z)
                np.bitwise_and(y, _PRIME, out=y)
                np.add(y, z, out=y)
                # y - prime is huge where y is smaller
                np.minimum(y, np.subtract(y, _PRIME, out=z), out=y)
                y.min(axis=1, out=minima[i : i + count])
            return [part.tolist() for part in np.split(minima, self.config.num_buckets)]


class Match(PipelineStep):
    """What datatrove's MinhashDedupBuckets finds, by sorting arrays instead of a heap of objects; a task a bucket.

    Args:
        folder: of the deduplication.
        config: of datatrove.
        memory: bytes of signatures that are sorted together.
    """

    type = "refine"
    name = "match signatures"

    def __init__(self, folder: pathlib.Path, config: MinhashConfig, memory: int = 1 << 29) -> None:
        super().__init__()
        self.folder, self.config, self.memory = folder, config, memory

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:  # type: ignore[no-untyped-def]
        """Writes pairs of documents, each as four numbers: task and position of both."""
        assert data is None
        assert world_size == self.config.num_buckets
        timer = Timer(self.folder, "match", rank)
        pairs = self.folder / "pairs" / f"{rank:05d}_00.dups"
        pairs.parent.mkdir(parents=True, exist_ok=True)
        with timer:
            records = self._records(rank)
            size = sum(len(part) * part.dtype.itemsize for part in records.values())
            # a task's signatures are sorted, so that a range of the first hash is a slice
            edges = np.linspace(0, float(_PRIME), max(1, -(-size // self.memory)) + 1)
            temporary = pairs.with_suffix(".tmp")
            with open(temporary, "wb") as file:
                for low, high in itertools.pairwise(edges):
                    file.write(self._pairs(records, low, high).tobytes())
            os.replace(temporary, pairs)
        timer.close()

    def _records(self, bucket: int) -> dict[int, np.ndarray]:
        """Task -> hashes [H] and position of its documents."""
        kind = np.dtype([("hashes", "<u8", (self.config.hashes_per_bucket,)), ("position", "<u4")])
        folder = self.folder / "signatures" / f"bucket_{bucket:03d}"
        return {
            int(path.name.split(".")[0]): np.memmap(path, kind, "r")
            for path in sorted(folder.glob("*.minhash.sig"))
            if path.stat().st_size
        }

    def _pairs(self, records: dict[int, np.ndarray], low: float, high: float) -> np.ndarray:
        """Documents next to each other among those with equal hashes, [N, 4]."""
        parts, tasks = [], []
        for number, part in records.items():
            begin, end = np.searchsorted(part["hashes"][:, 0].astype(float), [low, high])
            parts.append(part[begin : end if high < float(_PRIME) else len(part)])
            tasks.append(np.full(len(parts[-1]), number, np.uint32))
        if not parts:
            return np.zeros((0, 4), "<u4")
        found, task = np.concatenate(parts), np.concatenate(tasks)
        hashes = found["hashes"]
        # a hash of all hashes, so that equal ones are neighbours
        powers = np.cumprod(np.full(hashes.shape[1], 0x9E3779B97F4A7C15, np.uint64))
        whole = (hashes * powers).sum(axis=1)
        order = np.lexsort((found["position"], task, whole, hashes[:, 0]))
        found, task = found[order], task[order]
        equal = (found["hashes"][1:] == found["hashes"][:-1]).all(axis=1)
        both = (task[:-1], found["position"][:-1], task[1:], found["position"][1:])
        return np.stack([side[equal] for side in both], axis=1).astype("<u4")


class Cluster(MinhashDedupCluster):
    """datatrove's clusters of pairs, timed."""

    def __init__(self, folder: pathlib.Path, config: MinhashConfig) -> None:
        super().__init__(
            str(folder / "pairs"), str(folder / "clusters"), config=config, save_cluster_size=True
        )
        self.folder = folder

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:  # type: ignore[no-untyped-def]
        """Yields nothing."""
        with (timer := Timer(self.folder, "cluster", rank)):
            super().run(data, rank, world_size)
        timer.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropNearDuplicates(Rule):
    """Keeps one document of each cluster, which then knows how many there were (`minhash_cluster_size`)."""

    name: ClassVar[str] = NearDuplicates.name
    source: ClassVar[str] = "RefinedWeb, appendix G.3.1; FineWeb, section 3.4"

    settings: NearDuplicates
    folder: pathlib.Path
    task: int = 0

    def for_task(self, task: int) -> DropNearDuplicates:
        """With what was found about the task's documents."""
        return dataclasses.replace(self, task=task)

    @functools.cached_property
    def _removed(self) -> frozenset[int]:
        return frozenset(self._read("remove").tolist())

    @functools.cached_property
    def _sizes(self) -> dict[int, int]:
        return dict(self._read("sizes").reshape(-1, 2).tolist())

    def _read(self, kind: str) -> np.ndarray:
        path = self.folder / "clusters" / f"{self.task:06d}.{kind}"
        # there is no file for a task without duplicates
        return np.fromfile(path, "<u4") if path.exists() else np.zeros(0, "<u4")

    def check(self, document: Document) -> Drop | None:
        """The document's position tells which it is."""
        position = document.metadata["position"]
        size = self._sizes.get(position, 1)
        if position in self._removed:
            return Drop(
                "near_duplicate", size, f"similarity of about {self.settings.similarity:.2f}"
            )
        document.metadata["minhash_cluster_size"] = size
        return None
