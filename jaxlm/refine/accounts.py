"""What became of every document and every byte: counted by each task, added up, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass
class Amount:
    """Documents, and the bytes of their texts as UTF-8."""

    documents: int = 0
    bytes: int = 0

    def add(self, documents: int, size: int) -> None:
        """Adds documents of `size` bytes together."""
        self.documents += documents
        self.bytes += size


@dataclasses.dataclass
class StageAccount:
    """A stage: what came in = what went out + what was dropped + what was cut out of documents that stay."""

    name: str
    source: str = ""
    came: Amount = dataclasses.field(default_factory=Amount)
    left: Amount = dataclasses.field(default_factory=Amount)
    # rule -> documents that it dropped
    dropped: dict[str, Amount] = dataclasses.field(default_factory=dict)
    # taken out of documents that stay; negative if they grew
    edited: int = 0
    seconds: float = 0.0

    def drop(self, rule: str, size: int) -> None:
        """Counts a dropped document."""
        self.dropped.setdefault(rule, Amount()).add(1, size)

    def merge(self, other: StageAccount) -> None:
        """Adds what another task counted at the same stage."""
        assert self.name == other.name, (self.name, other.name)
        self.came.add(other.came.documents, other.came.bytes)
        self.left.add(other.left.documents, other.left.bytes)
        for rule, amount in other.dropped.items():
            self.dropped.setdefault(rule, Amount()).add(amount.documents, amount.bytes)
        self.edited += other.edited
        self.seconds += other.seconds

    def as_json(self) -> dict[str, Any]:
        """The entry of funnel.json; rules that dropped most come first."""
        order = sorted(self.dropped, key=lambda rule: (-self.dropped[rule].documents, rule))
        return {
            "name": self.name,
            "source": self.source,
            "documents_in": self.came.documents,
            "bytes_in": self.came.bytes,
            "dropped": {rule: dataclasses.asdict(self.dropped[rule]) for rule in order},
            "bytes_edited": self.edited,
            "documents_out": self.left.documents,
            "bytes_out": self.left.bytes,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> StageAccount:
        """The opposite of `as_json`."""
        return cls(
            name=entry["name"],
            source=entry["source"],
            came=Amount(entry["documents_in"], entry["bytes_in"]),
            left=Amount(entry["documents_out"], entry["bytes_out"]),
            dropped={rule: Amount(**amount) for rule, amount in entry["dropped"].items()},
            edited=entry["bytes_edited"],
            seconds=entry["seconds"],
        )


def add_up(tasks: Iterable[Sequence[StageAccount]]) -> list[StageAccount]:
    """The accounts of all tasks of a phase together, stage by stage."""
    total: list[StageAccount] = []
    for stages in tasks:
        for i, stage in enumerate(stages):
            if i == len(total):
                total.append(StageAccount(stage.name, stage.source))
            total[i].merge(stage)
    return total


def check(stages: Sequence[StageAccount], written: Amount) -> None:
    """Raises RuntimeError where documents or bytes are lost or appear from nowhere.

    Args:
        stages: of all phases, in order.
        written: documents and bytes of their texts, counted again in the files that were written.
    """
    before: StageAccount | None = None
    for stage in stages:
        documents = stage.left.documents + sum(a.documents for a in stage.dropped.values())
        size = stage.left.bytes + stage.edited + sum(a.bytes for a in stage.dropped.values())
        _same(f"stage {stage.name}", stage.came, Amount(documents, size))
        if before is not None:
            _same(f"between {before.name} and {stage.name}", before.left, stage.came)
        before = stage
    if before is not None:
        _same("the files that were written", before.left, written)


def _same(where: str, expected: Amount, actual: Amount) -> None:
    if expected != actual:
        raise RuntimeError(
            f"refine: the account does not balance ({where}): {expected.documents:,} documents and "
            f"{expected.bytes:,} bytes against {actual.documents:,} and {actual.bytes:,}"
        )
