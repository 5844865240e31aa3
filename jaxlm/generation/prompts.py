"""The prompts that are on their way into slots: those of similar length together, long ones in chunks."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.generation import cache, prefill
from jaxlm.generation.cache import Caches
from jaxlm.generation.decode import pad_prompts
from jaxlm.generation.requests import Row
from jaxlm.models.heads import CausalLM, Seq2SeqLM


class Shape(NamedTuple):
    """What a compiled program of `prefill` depends on, but for the number of rows."""

    # tokens at a time
    chunk: int
    # entries of the caches
    length: int
    # padded length of the source; 0 without an encoder
    source: int


@dataclasses.dataclass
class Job:
    """Prompts of similar length that are being processed together."""

    rows: list[Row]
    # in chunks [B, chunks, C]
    prompts: np.ndarray
    lengths: np.ndarray
    length: int
    sources: tuple[np.ndarray, np.ndarray] | None
    # tokens of the texts, where the rotary frequencies depend on them
    text_lengths: np.ndarray | None
    start: int = 0
    # None before the first chunk, and for prompts of one token
    caches: Caches | None = None


class Prompts:
    """Jobs in the order in which they came."""

    def __init__(
        self,
        model: CausalLM | Seq2SeqLM,
        params: Any,
        *,
        lengths: Sequence[int],
        source_lengths: Sequence[int],
        counts: Sequence[int],
        switch: int | None,
        is_prefix: bool,
    ):
        """There are none yet.

        Args:
            model: the language model.
            params: its parameters by layer.
            lengths: the lengths that caches can have.
            source_lengths: those of caches of sources; none without an encoder.
            counts: the numbers of rows that can be processed together.
            switch: tokens from which a text gets other rotary frequencies.
            is_prefix: a prompt is read in both directions.
        """
        self._model, self._params = model, params
        self._lengths, self._source_lengths, self._counts = lengths, source_lengths, counts
        self._switch, self._is_prefix = switch, is_prefix
        # such a prompt cannot come in chunks, and its last token is read with the others
        self._is_whole = is_prefix or bool(source_lengths)
        self._jobs: collections.deque[Job] = collections.deque()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._jobs)

    @property
    def rows(self) -> list[Row]:
        """Their requests."""
        return [row for job in self._jobs for row in job.rows]

    def add(self, rows: Iterable[Row]) -> None:
        """Makes jobs of rows, by the length of their prompts."""
        groups: dict[Shape, list[Row]] = {}
        for row in rows:
            groups.setdefault(self._shape(row), []).append(row)
        for shape, group in groups.items():
            # a long prompt is processed alone, so that few programs have to be compiled
            most = self._counts[-1] if shape.chunk == shape.length else self._counts[0]
            for first in range(0, len(group), most):
                self._jobs.append(self._job(group[first : first + most], shape))

    def process_chunk(self) -> Job | None:
        """Processes a chunk of the oldest job; returns the job if that was its last one."""
        job = self._jobs[0]
        if not self._proceed(job):
            return None
        return self._jobs.popleft()

    def _shape(self, row: Row) -> Shape:
        sizes = [size for size in prefill.BUCKETS if size <= self._lengths[-1]]
        source = 0
        if row.request.source is not None:
            sources = [size for size in prefill.BUCKETS if size < self._source_lengths[0]]
            source = cache.smallest([*sources, *self._source_lengths], row.source_length)
        count = self._to_process(row)
        if count <= sizes[-1]:
            size = cache.smallest(sizes, count)
            return Shape(size, size, source)
        length = cache.smallest(self._lengths, count)
        return Shape(length if self._is_whole else sizes[-1], length, source)

    def _to_process(self, row: Row) -> int:
        """Tokens that prefill reads: all but the last, which the first step reads, unless it belongs to a prefix."""
        return len(row.request.prompt) if self._is_whole else row.processed

    def _job(self, rows: list[Row], shape: Shape) -> Job:
        count = cache.smallest(self._counts, len(rows))
        padded = rows + [rows[-1]] * (count - len(rows))
        total = -(-shape.length // shape.chunk) * shape.chunk
        texts = [row.tokens[: self._to_process(row)] for row in padded]
        prompts, lengths = pad_prompts(texts, 0, length=total)
        sources = None
        if shape.source:
            given = [row.request.source or () for row in padded]
            sources = pad_prompts(given, 0, length=shape.source)
        whole = None
        if self._switch is not None:
            whole = np.array([len(row.tokens) for row in padded], np.int32)
            for row in rows:
                row.is_long = len(row.tokens) > self._switch
        prompts = prompts.reshape(count, -1, shape.chunk)
        return Job(rows, prompts, lengths, shape.length, sources, whole)

    def _proceed(self, job: Job) -> bool:
        """Whether the prompts of the job are processed now."""
        chunk = job.prompts.shape[2]
        if not job.lengths.any():
            return True
        if job.caches is None:
            job.caches = prefill.begin(
                self._model,
                self._params,
                job.prompts[:, 0],
                job.lengths,
                *(job.sources or ()),
                text_lengths=job.text_lengths,
                length=job.length,
                is_prefix=self._is_prefix,
            )
        else:
            part = job.prompts[:, job.start // chunk]
            start = np.int32(job.start)
            job.caches = prefill.proceed(
                self._model, self._params, part, start, job.caches, job.text_lengths
            )
        job.start += chunk
        return bool(job.start >= job.lengths.max())
