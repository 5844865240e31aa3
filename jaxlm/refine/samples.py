"""The documents that a report shows: a bounded sample of what a refined folder has of the dropped ones."""

from __future__ import annotations

import hashlib
import heapq
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import zstandard

from jaxlm.refine import reasons
from jaxlm.refine.readers import decompressed

# rule of a document that a stage changed and kept
EDITED = "edited"
# documents of a rule, and bytes of all of them on a page
_MOST_DOCUMENTS, _MOST_BYTES = 50, 6 << 20
# characters of a text that are shown: its start and its end
_START, _END = 3000, 1000
# characters that stay around what was taken out, on each side
_AROUND = 200
# characters of a text in which what was taken out is looked for
_MOST_SEARCHED = 200_000
# pieces that are marked in a document, and characters of each
_MOST_REMOVED, _MOST_PIECE = 100, 1000
# files of a stage that are read, and bytes of all files of a stage
_MOST_FILES, _MOST_READ = 200, 128 << 20
# kind of a piece of text: as it is, and how many characters are left out
KEPT, LEFT_OUT = 0, 1


class Samples(NamedTuple):
    """Documents as the page reads them, how many there are of (stage, rule), and in words what is left out."""

    documents: list[dict[str, Any]]
    counts: dict[tuple[str, str], int]
    bounds: str


def read(folder: pathlib.Path) -> Samples:
    """A random sample of each rule, the same one each time; empty where there is no such folder.

    Raises:
        ValueError: a file cannot be read.
    """
    # (stage, rule) -> a heap of those with the smallest hashes: (negative hash, number, document)
    heaps: dict[tuple[str, str], list[tuple[int, int, dict[str, Any]]]] = {}
    seen: dict[tuple[str, str], int] = {}
    stages = sorted(path for path in folder.glob("*") if path.is_dir())
    number = 0
    for stage in stages:
        files = sorted(path for path in stage.rglob("*.jsonl*") if path.is_file())
        # spread over all files
        files = files[:: max(1, -(-len(files) // _MOST_FILES))]
        for path in files:
            for record in _records(path, _MOST_READ // len(files)):
                key = (str(record.get("stage") or stage.name), str(record["rule"]))
                seen[key] = seen.get(key, 0) + 1
                heap = heaps.setdefault(key, [])
                number += 1
                order = (-_hash(f"{path.name} {record.get('id')}"), number)
                if len(heap) == _MOST_DOCUMENTS and order < heap[0][:2]:
                    continue
                entry = (*order, _document(record, *key))
                (heapq.heappushpop if len(heap) == _MOST_DOCUMENTS else heapq.heappush)(heap, entry)
    chosen = {
        key: [entry[2] for entry in sorted(heap, reverse=True)] for key, heap in heaps.items()
    }
    limit = _limit(chosen)
    chosen = {key: documents[:limit] for key, documents in chosen.items()}
    bounds = (
        f"At most {limit} documents of a rule are here, chosen at random from "
        f"{sum(seen.values()):,} in the folder dropped/. Of a long text the first {_START:,} and the last {_END:,} "
        "characters are shown."
    )
    return Samples(
        [document for documents in chosen.values() for document in documents],
        {key: len(documents) for key, documents in chosen.items()},
        bounds,
    )


def _records(path: pathlib.Path, most_bytes: int) -> Iterator[Mapping[str, Any]]:
    """The records at the start of a file; at least one."""
    line_number = 0
    try:
        with path.open("rb") as raw:
            for line in decompressed(raw, path.name):
                line_number += 1
                yield json.loads(line)
                most_bytes -= len(line)
                if most_bytes <= 0:
                    return
    except (ValueError, OSError, zstandard.ZstdError) as error:
        raise ValueError(
            f"{path}: line {line_number} cannot be read ({error}); run `jaxlm refine` again into an empty folder"
        ) from None


def _hash(text: str) -> int:
    # ids may hold halves of surrogate pairs
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _limit(chosen: Mapping[tuple[str, str], Sequence[dict[str, Any]]]) -> int:
    """How many documents of each rule fit on the page."""
    sizes = {
        key: [len(json.dumps(document, ensure_ascii=False)) for document in documents]
        for key, documents in chosen.items()
    }
    limit = _MOST_DOCUMENTS
    while limit > 1 and sum(sum(of[:limit]) for of in sizes.values()) > _MOST_BYTES:
        limit -= max(1, limit // 10)
    return limit


def _document(record: Mapping[str, Any], stage: str, rule: str) -> dict[str, Any]:
    """A document as the page reads it."""
    text = str(record.get("text") or "")
    document: dict[str, Any] = {
        "stage": stage,
        "rule": rule,
        "id": _cut(str(record.get("id") or ""), 300),
        "url": _cut(str(record.get("url") or ""), 1000),
        "language": str(record.get("language") or ""),
        "characters": len(text),
    }
    removed = [(str(of), str(what)) for of, what in record.get("removed") or ()]
    if rule == EDITED:
        why = _changes(removed)
    else:
        why = reasons.sentence(stage, rule, record.get("value"), record.get("threshold"))
    document["pieces"], document["removed"] = _marked(text[:_MOST_SEARCHED], removed)
    if len(text) > _MOST_SEARCHED and removed:
        document["pieces"].append([LEFT_OUT, len(text) - _MOST_SEARCHED])
    elif not removed:
        document["pieces"] = _shortened(text, _START, _END)
    return document | {"why": _cut(why, 600)}


def _changes(removed: Sequence[tuple[str, str]]) -> str:
    """How often what was taken out, in words."""
    counts: dict[str, int] = {}
    for rule, _ in removed:
        counts[rule] = counts.get(rule, 0) + 1
    each = ", ".join(f"{rule.replace('_', ' ')} ({n})" for rule, n in counts.items())
    return f"Kept after a change: {each}" if each else "Kept after a change"


def _marked(
    text: str, removed: Sequence[tuple[str, str]]
) -> tuple[list[list[Any]], list[list[str]]]:
    """The text in pieces, with what was taken out where it is found in it; and what is not found.

    Args:
        text: before it was changed.
        removed: (rule, text), in the order of the text.
    """
    found: list[tuple[int, int, str]] = []
    others: list[list[str]] = []
    after = 0
    for rule, what in removed[:_MOST_REMOVED]:
        place = _find(text, what, after)
        if place is None:
            others.append([rule, _cut(what, _MOST_PIECE)])
        else:
            found.append((*place, rule))
            after = place[1]
    pieces: list[list[Any]] = []
    at = 0
    for start, end, rule in found:
        # what is far from any mark is left out
        pieces += _shortened(text[at:start], _AROUND, _AROUND)
        pieces.append([rule, _cut(text[start:end], _MOST_PIECE)])
        at = end
    # without a mark the text is shown as any other
    pieces += _shortened(text[at:], *((_AROUND, _AROUND) if found else (_START, _END)))
    return pieces, others


def _find(text: str, what: str, after: int) -> tuple[int, int] | None:
    """Start and end of what was removed: preferably a whole line, otherwise not within a word."""
    what = what.strip()
    if not what:
        return None
    words = re.escape(what)
    line = re.compile(rf"^[^\S\n]*({words})[^\S\n]*$", re.M).search(text, after)
    if line:
        return line.span(1)
    part = re.compile(words if len(what) > 20 else rf"(?<![^\W_]){words}(?![^\W_])")
    place = part.search(text, after)
    return place and place.span()


def _shortened(text: str, start: int, end: int) -> list[list[Any]]:
    """A text in pieces: whole, or its start, how many characters are left out, and its end."""
    if len(text) <= start + end + 100:
        return [[KEPT, text]] if text else []
    return [[KEPT, text[:start]], [LEFT_OUT, len(text) - start - end], [KEPT, text[-end:]]]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
