"""A phase: documents are read, go through stages, are counted, and written; one task's part of it is one file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from jaxlm.refine import shards
from jaxlm.refine.accounts import StageAccount
from jaxlm.refine.readers import Inputs, Record, size_of
from jaxlm.refine.rule import Drop, Rule

# documents that go through the stages together, and the most bytes of them
_BATCH = 64
_BATCH_BYTES = 1 << 24
# dropped and edited documents of a rule that a task keeps for the report, when not all are kept
SAMPLES = 20
_REMOVED = "removed_lines"


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a phase leaves what it does."""

    # <output folder>/work/<number>-<name>
    work: pathlib.Path
    # one file a task
    documents: pathlib.Path
    dropped: pathlib.Path

    def account(self, task: int) -> pathlib.Path:
        """The counts of a task."""
        return self.work / "accounts" / f"{task:05d}.json"

    def progress(self, task: int) -> pathlib.Path:
        """How far a task has come."""
        return self.work / "progress" / f"{task:05d}"

    @property
    def logs(self) -> pathlib.Path:
        """datatrove's logs and the marks of tasks that are done."""
        return self.work / "logs"


class Phase(PipelineStep):
    """A step of datatrove that reads for itself, and passes on the documents that it wrote.

    Args:
        source: input files, or the folder of the phase before.
        rules: stages in order.
        files: what it writes.
        form: of the documents' files.
        keep_dropped: write all dropped documents, not only some of each rule.
    """

    type = "refine"
    name = "stages"

    def __init__(
        self,
        source: Inputs | pathlib.Path,
        rules: Sequence[Rule],
        files: Files,
        form: shards.Format = "jsonl",
        keep_dropped: bool = False,
    ) -> None:
        super().__init__()
        self.source, self.rules, self.files = source, tuple(rules), files
        self.form: shards.Format = form
        self.keep_dropped = keep_dropped

    def run(  # type: ignore[no-untyped-def]
        self, data=None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yields every document after it is written; the file is there when all were."""
        del data
        rules = [rule.for_task(rank) for rule in self.rules]
        reading = StageAccount("read")
        accounts = [StageAccount(rule.name, rule.source) for rule in rules]
        samples = Samples(shards.path_of(self.files.dropped, rank), self.keep_dropped)
        path = shards.path_of(self.files.documents, rank, self.form)
        writer = shards.Writer(path) if self.form == "jsonl" else shards.ParquetWriter(path)
        progress = _Progress(self.files.progress(rank))
        try:
            with writer, samples:
                for batch in _batches(self._records(rank, world_size, reading, samples)):
                    kept = _through(batch, rules, accounts, samples)
                    for document in kept:
                        writer.write(shards.as_row(document))
                    progress.tell(reading)
                    yield from kept
        finally:
            for rule in rules:
                rule.close()
        written = shards.count(path)
        account = {
            "stages": [stage.as_json() for stage in [reading, *accounts]],
            "written": dataclasses.asdict(written),
        }
        shards.write_text(self.files.account(rank), json.dumps(account))
        progress.tell(reading, last=True)

    def _records(
        self, task: int, tasks: int, reading: StageAccount, samples: Samples
    ) -> Iterator[Document]:
        """The documents of a task, counted as they are read."""
        records: Iterable[Record]
        if isinstance(self.source, Inputs):
            records = self.source.records(task, tasks)
        else:
            found = shards.documents(shards.path_of(self.source, task))
            records = (Record(document, "", size_of(document.text)) for document in found)
        began = time.perf_counter()
        for record in records:
            reading.seconds += time.perf_counter() - began
            reading.came.add(1, record.size)
            if record.document is None:
                reading.drop(record.fault, record.size)
                nothing = Document(text="", id=record.where)
                samples.add(reading.name, Drop(record.fault, record.size, ""), nothing, "", [])
            else:
                reading.left.add(1, record.size)
                yield record.document
            began = time.perf_counter()


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _through(
    batch: list[Document],
    rules: Sequence[Rule],
    accounts: Sequence[StageAccount],
    samples: Samples,
) -> list[Document]:
    """The documents of a batch that all stages keep."""
    sizes = [size_of(document.text) for document in batch]
    for rule, account in zip(rules, accounts, strict=True):
        if not batch:
            break
        texts = [document.text for document in batch]
        began = time.perf_counter()
        drops = rule.check_batch(batch)
        account.seconds += time.perf_counter() - began
        account.came.add(len(batch), sum(sizes))
        kept, kept_sizes = [], []
        for document, text, size, drop in zip(batch, texts, sizes, drops, strict=True):
            removed = document.metadata.pop(_REMOVED, [])
            if drop is not None:
                account.drop(drop.rule, size)
                samples.add(rule.name, drop, document, text, removed)
                continue
            # most stages leave the text alone: then it is the same object
            after = size if document.text is text else size_of(document.text)
            if removed:
                samples.add(rule.name, None, document, text, removed)
            account.edited += size - after
            account.left.add(1, after)
            kept.append(document)
            kept_sizes.append(after)
        batch, sizes = kept, kept_sizes
    return batch


class Samples:
    """Documents that were dropped or edited, for the report."""

    def __init__(self, path: pathlib.Path, keep_all: bool) -> None:
        self._writer = shards.Writer(path)
        self._keep_all = keep_all
        self._count: dict[tuple[str, str], int] = {}

    def add(
        self,
        stage: str,
        drop: Drop | None,
        document: Document,
        text: str,
        removed: list[list[str]],
    ) -> None:
        """A document with its text before the stage; `drop` is None if it stays."""
        rule = "edited" if drop is None else drop.rule
        count = self._count[stage, rule] = self._count.get((stage, rule), 0) + 1
        if count > SAMPLES and (drop is None or not self._keep_all):
            return
        row: dict[str, Any] = {
            "id": document.id,
            "url": document.metadata.get("url"),
            "language": document.metadata.get("language"),
            "stage": stage,
            "rule": rule,
            "value": None if drop is None else drop.value,
            "threshold": None if drop is None else drop.threshold,
            "text": text,
        }
        if removed:
            row["removed"] = removed
        self._writer.write(row)

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class _Progress:
    """A small file that says how far a task has come, at most twice a second."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._told = 0.0

    def tell(self, reading: StageAccount, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._told > 0.5:
            self._told = now
            shards.write_text(self._path, f"{reading.came.documents} {reading.came.bytes}")
