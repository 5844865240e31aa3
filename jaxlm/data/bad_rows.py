"""Rows that cannot be used: the reason of each, and how many there are."""

from __future__ import annotations

import collections
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    # a few words, the same for all rows with this fault: rows are counted by it
    reason: str
    # what differs from row to row, and what was expected
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


# never an error: such rows are always skipped
EMPTY_TEXT = BadRow("empty text")
EMPTY_FILE = BadRow("empty file", "it has no rows")
NOT_UTF8 = BadRow("not UTF-8", "convert the file, for instance with iconv")
# errors="surrogateescape" decodes bytes that are not UTF-8 to these characters
UNDECODED = re.compile("[\udc80-\udcff]")


def is_undecoded(text: str) -> bool:
    """Whether a text that was decoded with errors="surrogateescape" holds bytes that are not UTF-8."""
    return not text.isascii() and UNDECODED.search(text) is not None


@dataclasses.dataclass
class RowCounts:
    """How many rows were read, and how many of them were skipped for which reason."""

    read: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # reason -> the first row that was skipped for it
    first: dict[str, str] = dataclasses.field(default_factory=dict)
    # sources that data.max_documents leaves unread
    unread: tuple[str, ...] = ()

    def skip(self, bad: BadRow, where: str) -> None:
        """Counts a row as skipped."""
        self.skipped[bad.reason] += 1
        self.first.setdefault(bad.reason, where)

    def __str__(self) -> str:
        reasons = [
            f"{count:,} skipped: {reason} (first at {self.first[reason]})"
            for reason, count in self.skipped.items()
        ]
        if self.unread:
            reasons.append(f"data.max_documents leaves unread: {', '.join(self.unread)}")
        return "; ".join([f"{self.read:,} rows read", *reasons])
